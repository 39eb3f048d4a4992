"""Sample answers to questions about pictures: what of a picture is kept, and that questions are told apart by it."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from lorafy.data.pictures import look_at
from lorafy.evaluation.language import Asked, questions, samples
from lorafy.inference.generate import Answer
from lorafy.inference.showing import user_turn
from lorafy.pictures.thumbnail import LONGEST_SIDE, PREFIX, thumbnail
from lorafy.types import Conversation, Message, Picture
from picture_files import exif, quarters, saved


def pixels(thumbnail: str) -> Image.Image:
    assert thumbnail.startswith(PREFIX)
    image = Image.open(io.BytesIO(base64.b64decode(thumbnail.removeprefix(PREFIX))))
    assert image.format == "JPEG"
    return image


@pytest.mark.parametrize(
    ("size", "expected"),
    [((640, 480), (160, 120)), ((300, 900), (53, 160)), ((24, 16), (24, 16)), ((1000, 5), (160, 1))],
)
def test_a_thumbnail_is_small_and_keeps_its_shape(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert LONGEST_SIDE == 160
    assert pixels(thumbnail(Picture("a", data=saved(quarters(*size))))).size == expected


def test_a_thumbnail_is_turned_and_on_white() -> None:
    turned = pixels(thumbnail(Picture("a", data=saved(quarters(48, 32), "JPEG", exif=exif(6)))))
    assert turned.size == (32, 48)
    clear = pixels(thumbnail(Picture("a", data=saved(Image.new("RGBA", (8, 8), (0, 0, 0, 0))))))
    assert clear.getpixel((4, 4)) == (255, 255, 255)


def asked(text: str, answer: str, row: int, *pictures: bytes) -> Conversation:
    named = [Picture(f"{place}.png", data=content) for place, content in enumerate(pictures)]
    turn = user_turn(text, look_at(named, Path()))
    return Conversation((turn, Message("assistant", answer)), "the test", row)


def test_the_same_question_about_another_picture_is_another_one() -> None:
    first, second = saved(quarters()), saved(quarters().rotate(180))
    rows = [
        asked("What?", "Quarters.", 1, first),
        asked("What?", "Turned.", 2, second),
        asked("What?", "Four.", 3, first),
        asked("What?", "Nothing.", 4),
        asked("Is <image> <image>?", "No.", 5, first, second),
    ]
    found = questions(rows, 9)
    assert [question.references for question in found] == [["Quarters.", "Four."], ["Turned."], ["Nothing."], ["No."]]
    answers = [Answer("A", 1, ended=True, looped=False)] * 4
    kept = samples(found, answers, None)
    assert [sample["prompt"] for sample in kept] == ["<image>What?", "<image>What?", "What?", "Is <image> <image>?"]
    assert "pictures" not in kept[2]
    assert [[picture["name"] for picture in sample.get("pictures", [])] for sample in kept] == [
        ["0.png"], ["0.png"], [], ["0.png", "1.png"],
    ]  # fmt: skip
    shown = [picture["thumbnail"] for sample in kept for picture in sample.get("pictures", [])]
    assert shown[0] == shown[2] != shown[1] == shown[3]


def test_a_picture_of_an_earlier_turn_is_shown_too() -> None:
    turn = user_turn("What?", look_at([Picture("a.png", data=saved(quarters()))], Path()))
    question = Asked((turn, Message("assistant", "Quarters."), Message("user", "Why?")), ["So."], 1)
    (sample,) = samples([question], [Answer("A", 1, ended=True, looped=False)], None)
    assert sample["prompt"] == "Why?" and [picture["name"] for picture in sample["pictures"]] == ["a.png"]
