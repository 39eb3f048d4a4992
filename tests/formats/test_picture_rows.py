"""Rows with pictures, in every shape that people have them in: what stands where in the conversation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from pyarrow import parquet

from lorafy.config.schema import Columns, DataSection
from lorafy.data.corpus import choose_format
from lorafy.data.sources import read_source
from lorafy.formats import chat, completion
from lorafy.plugins import load_plugin
from lorafy.types import PICTURE_MARK as P
from lorafy.types import Conversation, DataError
from picture_files import in_base64, quarters, saved

BYTES = saved(quarters())
URL = f"data:image/png;base64,{in_base64(BYTES)}"
ALLOWED = ("labelled", "completion", "chat", "text")
Said = list[tuple[str, str, list[str]]]


def read(record: dict[str, Any], columns: Columns | None = None, *, form: str = "", answered: bool = True) -> Said:
    """Role, content and pictures (their paths, or the word bytes) of each message of one record."""
    wanted = columns or Columns(text=None)
    form = form or choose_format(DataSection(train="a", columns=wanted), list(record), ALLOWED)
    plugin = load_plugin("formats", form)
    found = plugin.resolve_columns(list(record), wanted, "a.jsonl", answered=answered)
    return said(plugin.parse(record, found, "a.jsonl", 7, {}))


def said(conversation: Conversation) -> Said:
    for message in conversation.messages:
        assert not message.pictures or message.content.count(P) == len(message.pictures)
    return [
        (message.role, message.content, [picture.path or "bytes" for picture in message.pictures])
        for message in conversation.messages
    ]


def refusal(record: dict[str, Any], columns: Columns | None = None, **more: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(record, columns, **more)
    for problem in caught.value.problems:
        assert problem.fix
    return str(caught.value)


def talk(question: Any, answer: Any = "A cat.") -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


ASKED: Said = [("user", f"{P}What?", ["a.jpg"]), ("assistant", "A cat.", [])]
OF_BYTES: Said = [("user", f"{P}What?", ["bytes"]), ("assistant", "A cat.", [])]

SHAPES: dict[str, tuple[dict[str, Any], Said]] = {
    "LLaMA-Factory": ({"messages": talk("<image>What?"), "images": ["a.jpg"]}, ASKED),
    "a string": ({"messages": talk("<image>What?"), "images": "a.jpg"}, ASKED),
    "trl, prompt and completion": (
        {"prompt": talk([{"type": "image"}, text("What?")])[:1], "completion": talk("")[1:], "images": ["a.jpg"]},
        ASKED,
    ),
    "a list in csv": ({"messages": json.dumps(talk("<image>What?")), "images": '["a.jpg"]'}, ASKED),
    "LLaVA": (
        {
            "id": "1",
            "image": "a.jpg",
            "conversations": [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "A cat."}],
        },
        ASKED,
    ),
    "ms-swift": ({"messages": talk("<image>What?"), "images": [{"bytes": None, "path": "a.jpg"}]}, ASKED),
    "a hub feature": ({"messages": talk("<image>What?"), "image": {"bytes": BYTES, "path": "a.jpg"}}, OF_BYTES),
    "capitals": ({"Messages": talk("<image>What?"), "Images": ["a.jpg"]}, ASKED),
    "no mark": ({"messages": talk("What?"), "images": ["a.jpg"]}, ASKED),
    "trl": ({"messages": talk([{"type": "image"}, text("What?")], [text("A cat.")]), "images": ["a.jpg"]}, ASKED),
    "a mark in a part": ({"messages": talk([text("<image>What?")]), "images": ["a.jpg"]}, ASKED),
    "a part with a path": ({"messages": talk([{"type": "image", "image": "a.jpg"}, text("What?")])}, ASKED),
    "a part with a url": ({"messages": talk([{"type": "image", "url": "file:///a.jpg"}, text("What?")])},
        [("user", f"{P}What?", ["/a.jpg"]), ASKED[1]]),
    "a part with path": ({"messages": talk([{"type": "image", "path": "a.jpg"}, text("What?")])}, ASKED),
    "a part with base64": (
        {"messages": talk([{"type": "image", "base64": in_base64(BYTES)}, text("What?")])}, OF_BYTES
    ),
    "a part with bytes": (
        {"messages": talk([{"type": "image", "bytes": BYTES, "path": "x"}, text("What?")])}, OF_BYTES
    ),
    "a part with a feature": (
        {"messages": talk([{"type": "image", "image": {"bytes": BYTES, "path": None}}, text("What?")])}, OF_BYTES
    ),
    "OpenAI": ({"messages": talk([{"type": "image_url", "image_url": {"url": URL}}, text("What?")])}, OF_BYTES),
    "OpenAI, a string": ({"messages": talk([{"type": "image_url", "image_url": "a.jpg"}, text("What?")])}, ASKED),
    "OpenAI, responses": (
        {
            "messages": talk(
                [{"type": "input_image", "image_url": "a.jpg"}, {"type": "input_text", "text": "What?"}],
                [{"type": "output_text", "text": "A cat."}],
            )
        },
        ASKED,
    ),
    "parquet's nulls": (
        {
            "messages": talk([
                {"type": "image", "text": None, "image": "a.jpg", "image_url": None},
                {"type": "text", "text": "What?", "image": None, "image_url": {"url": None}},
            ])
        },
        ASKED,
    ),
    "prompt, answer": ({"prompt": "What?", "answer": "A cat.", "image": "a.jpg"}, ASKED),
    "question, answer": ({"image": "a.jpg", "question": "<image>What?", "answer": "A cat."}, ASKED),
    "text, target": ({"text": "What?", "target": "A cat.", "images": ["a.jpg"]}, ASKED),
    "Alpaca": ({"instruction": "<image>What?", "input": "", "output": "A cat.", "images": ["a.jpg"]}, ASKED),
    "a caption": ({"image": "a.jpg", "caption": "A cat.", "caption_zh": "猫。"},
        [("user", P, ["a.jpg"]), ("assistant", "A cat.", [])]),
    "a text": ({"image": {"bytes": BYTES, "path": None}, "text": "A cat."},
        [("user", P, ["bytes"]), ("assistant", "A cat.", [])]),
    "several captions": ({"images": ["a.jpg", "b.jpg"], "Caption": "Two cats."},
        [("user", P * 2, ["a.jpg", "b.jpg"]), ("assistant", "Two cats.", [])]),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape(name: str) -> None:
    record, expected = SHAPES[name]
    assert read(record) == expected


def test_pictures_stand_where_their_marks_are_over_several_turns() -> None:
    record = {
        "messages": [
            {"role": "system", "content": "Look at <image> well."},
            *talk("A <image>\nor <image>?", "The first <image>."),
            *talk("And <image>"),
            *talk("Why?"),
        ],
        "images": ["a.jpg", "b.jpg", "c.jpg"],
    }
    assert read(record) == [
        ("system", "Look at <image> well.", []),
        ("user", f"A {P}\nor {P}?", ["a.jpg", "b.jpg"]),
        ("assistant", "The first <image>.", []),  # in answers it is text: LLaMA-Factory's issue 8440
        ("user", f"And {P}", ["c.jpg"]),
        ("assistant", "A cat.", []),
        ("user", "Why?", []),
        ("assistant", "A cat.", []),
    ]
    assert read(record, answered=False) == read(record)[:-1]


def test_without_a_mark_all_stand_before_the_first_question() -> None:
    record = {"messages": [{"role": "system", "content": "s"}, *talk(" 1?"), *talk("2?")], "images": ["a", "b"]}
    assert read(record)[1] == ("user", f"{P}{P} 1?", ["a", "b"])
    parts = {"messages": talk([text("1"), text("?")]), "images": ["a", "b"]}
    assert read(parts)[0] == ("user", f"{P}{P}1?", ["a", "b"])


def test_parts_and_the_column_may_be_mixed() -> None:
    own = {"type": "image", "image": "own.jpg"}
    record = {"messages": talk([text("<image>"), own, {"type": "image"}, text("?")]), "images": ["a.jpg", "b.jpg"]}
    assert read(record)[0] == ("user", f"{P}{P}{P}?", ["a.jpg", "own.jpg", "b.jpg"])


def test_rows_without_a_picture_stay_as_they_are() -> None:
    nothings: list[Any] = [None, [], "", float("nan"), {"bytes": None, "path": None}, "[]"]
    for nothing in nothings:
        plain: Said = [("user", f"What is {P}?", []), ("assistant", "A cat.", [])]
        assert read({"messages": talk(f"What is {P}?"), "images": nothing}) == plain
        assert read({"prompt": f"What is {P}?", "answer": "A cat.", "image": nothing}) == plain
        assert read({"caption": "A cat.", "image": nothing})[0] == ("user", "", [])
    assert read({"messages": talk("What is <image>?")})[0] == ("user", "What is <image>?", [])
    assert read({"prompt": "What is <image>?", "answer": "x"})[0] == ("user", "What is <image>?", [])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"messages": talk("<image><image>?"), "images": ["a"]},
         "2 marks <image> in the questions, 1 picture in the column of pictures (row 7)"),
        ({"messages": talk("<image>?"), "images": ["a", "b"]}, "1 mark <image> in the questions, 2 pictures in"),
        ({"messages": talk("<image>?"), "images": None}, "1 mark <image> in the questions, no picture in"),
        ({"messages": talk("?", "<image>"), "images": ["a", "b"]}, ""),  # no mark in a question: both before it
        ({"prompt": "<image><image>", "answer": "x", "image": "a"}, "2 marks <image> in the questions, 1 picture in"),
        ({"messages": talk([text("<image>"), {"type": "image"}]), "images": ["a"]},
         "1 mark <image> and 1 part without a picture in the questions, 1 picture in"),
        ({"messages": talk([{"type": "image", "image": "b"}]), "images": ["a"]},
         "no mark <image> in the questions, 1 picture in the column of pictures beside 1 picture of parts"),
        ({"messages": talk([{"type": "image"}, {"type": "image"}])},
         "2 parts without a picture and no column of pictures (row 7)"),
        ({"messages": talk([{"type": "image_url", "image_url": {"url": "https://a.org/a.jpg"}}])},
         "https://a.org/a.jpg is an address of the network (turn 1, row 7)"),
        ({"messages": talk("?"), "images": ["http://a.org/a.jpg"]}, "is an address of the network (row 7)"),
        ({"messages": talk([{"type": "input_image", "file_id": "file-1"}])}, "a file_id is a file at OpenAI"),
        ({"messages": talk([{"type": "image", "image": ["a", "b"]}])}, "a list in the place of one picture"),
        ({"messages": talk("?", [{"type": "image", "image": "a"}])},
         "turn 2 is 'assistant' and holds a part of the type 'image' (row 7)"),
        ({"messages": [{"role": "system", "content": [{"type": "image"}]}, *talk("?")], "images": "a"},
         "turn 1 is 'system' and holds a part of the type 'image' (row 7)"),
        ({"messages": talk([{"type": "video", "video": "a.mp4"}])}, "not from videos yet"),
        ({"messages": talk([{"type": "input_audio", "input_audio": {}}])}, "not from sound yet"),
        ({"messages": talk("<video>?"), "videos": ["a.mp4"]}, "'videos' holds a video (row 7)"),
        ({"prompt": "?", "answer": "x", "Video": "a.mp4"}, "lorafy learns from still pictures, not from videos yet"),
        ({"messages": talk(f"<image>{P}?"), "images": "a"}, "holds the character U+FFFC, which stands for pictures"),
        ({"messages": talk(f"{P}?"), "images": "a"}, "take it out of the text"),
        ({"messages": talk("?"), "images": 3}, "3 names no picture (row 7)"),
        ({"messages": talk("?"), "images": "a", "image": "b"}, "a.jsonl has two columns of pictures, images and image"),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_what_does_not_match_is_refused_with_both_counts(record: dict[str, Any], message: str) -> None:
    if message:
        assert message in refusal(record)
    else:
        assert read(record)[0][2] == ["a", "b"]


def test_videos_that_are_not_there_do_not_matter() -> None:
    nothings: list[Any] = [None, [], "", float("nan")]
    for nothing in nothings:
        assert read({"messages": talk("?"), "videos": nothing, "images": []})[0][1] == "?"
    assert read({"video": "What?", "b": "x"}, Columns(prompt="video", completion="b"))[0][1] == "What?"


def test_the_column_is_named_in_the_recipe() -> None:
    named = Columns(images="photo")
    assert read({"messages": talk("?"), "photo": "a.jpg", "image": "b"}, named)[0][2] == ["a.jpg"]
    assert read({"prompt": "?", "answer": "x", "photo": "a.jpg"}, named)[0][2] == ["a.jpg"]
    assert read({"photo": "a.jpg", "caption": "x"}, named)[0] == ("user", P, ["a.jpg"])
    assert read({"data": {"photo": ["a", "b"]}, "messages": talk("?")}, Columns(images="data.photo"))[0][2] == [
        "a",
        "b",
    ]
    assert read({"0": "What?", "1": "x", "2": "a.jpg"}, Columns(prompt=0, completion=1, images=2))[0][2] == ["a.jpg"]
    assert read({"photo": "a", "says": "x"}, Columns(images="photo", completion="says"))[0] == ("user", P, ["a"])
    assert read({"image": "a cat", "b": "x"}, Columns(prompt="image", completion="b"))[0] == ("user", "a cat", [])
    with pytest.raises(DataError, match=r"no column 'photo' in a\.jsonl; it has messages"):
        read({"messages": talk("?")}, named)
    taken = Columns(prompt="a", completion="b", images="a")
    assert "'a' of a.jsonl is taken twice, as pictures and as text" in refusal({"a": "?", "b": "x"}, taken)


@pytest.mark.parametrize(
    ("names", "form"),
    [
        (["image", "caption"], "completion"),
        (["Images", "TEXT"], "completion"),
        (["image", "text", "label"], "labelled"),
        (["image", "text", "target"], "completion"),  # a question with its answer
        (["text"], "text"),
        (["text", "label"], "labelled"),
        (["caption", "text"], "text"),
        (["image", "messages", "caption"], "chat"),
        (["image", "content"], "text"),
    ],
)
def test_which_format_a_table_is_in(names: list[str], form: str) -> None:
    assert choose_format(DataSection(train="a"), names, ALLOWED) == form


def test_a_named_text_is_a_text_beside_pictures_too() -> None:
    data = DataSection(train="a", columns=Columns(text="text"))
    assert choose_format(data, ["image", "text"], ALLOWED) == "text"


def test_what_may_be_a_question_or_a_caption_is_asked() -> None:
    both = {"image": "a.jpg", "text": "A?", "caption": "B"}
    assert "is 'text' of a.jsonl what is asked of a picture, or what is to be answered?" in refusal(both)
    assert read(both, Columns(prompt="text", completion="caption"))[0] == ("user", f"{P}A?", ["a.jpg"])
    alone = {"image": "a.jpg", "text": "A?"}
    assert "call the column question, or caption" in refusal(alone, form="completion", answered=False)
    assert read(alone, Columns(prompt="text"), form="completion", answered=False)[0][1] == f"{P}A?"


@pytest.mark.parametrize(
    "record",
    [{"image": "a.jpg"}, {"image": "a.jpg", "caption": "A cat."}, {"image": "a.jpg", "id": 3}],
    ids=str,
)
def test_pictures_alone_can_be_asked(record: dict[str, Any]) -> None:
    assert read(record, form="completion", answered=False) == [("user", P, ["a.jpg"])]
    found = completion.resolve_columns(list(record), Columns(), "a.csv", answered=False)
    assert (found.prompt, found.images) == (None, "image")


def test_questions_about_pictures_without_answers() -> None:
    for record in (
        {"question": "<image>What?", "image": "a.jpg"},
        {"prompt": "What?", "answer": "A cat.", "image": "a.jpg"},
    ):
        assert read(record, form="completion", answered=False) == ASKED[:1]
    asked = {"messages": talk("<image>What?")[:1], "images": ["a.jpg"]}
    assert read(asked, answered=False) == ASKED[:1]


def test_a_parquet_file_and_a_saved_set_hold_what_a_feature_holds(tmp_path: Path) -> None:
    """Undecoded, as a file's bytes, or as its path."""
    (tmp_path / "a.png").write_bytes(BYTES)
    rows = {
        "messages": [talk("<image>What?"), talk("What?")],
        "images": [[{"bytes": BYTES, "path": None}], [str(tmp_path / "a.png")]],
    }
    features = datasets.Features(
        messages=datasets.List({"role": datasets.Value("string"), "content": datasets.Value("string")}),
        images=datasets.List(datasets.Image()),
    )
    with_list = datasets.Dataset.from_dict(rows, features=features)
    one = datasets.Dataset.from_dict(
        {"image": [BYTES, str(tmp_path / "a.png")], "caption": ["A cat.", "A dog."]},
        features=datasets.Features(image=datasets.Image(), caption=datasets.Value("string")),
    )
    parts = {"messages": [talk([{"type": "image", "image": "a.jpg"}, text("What?")], [text("A cat.")])]}
    parquet.write_table(
        pyarrow.Table.from_pydict({"messages": [talk("What?")], "image": [BYTES]}), tmp_path / "b.parquet"
    )
    parquet.write_table(pyarrow.Table.from_pydict(parts), tmp_path / "parts.parquet")
    with_list.to_parquet(tmp_path / "list.parquet")
    with_list.save_to_disk(str(tmp_path / "list"))
    datasets.DatasetDict(train=one).save_to_disk(str(tmp_path / "one"))
    there = str(tmp_path / "a.png")
    expected = {
        "list.parquet": [["bytes"], [there]],
        "list": [["bytes"], ["bytes"]],  # save_to_disk puts the files inside
        "one": [["bytes"], ["bytes"]],
        "b.parquet": [["bytes"]],
        "parts.parquet": [["a.jpg"]],
    }
    for name, pictures in expected.items():
        path = str(tmp_path / name)
        table = read_source(path, DataSection(train=path), "train")["train"]
        assert [read(dict(record))[0][2] for record in table.records] == pictures, name


def test_the_real_rows(shared_data: Path) -> None:
    folder = shared_data / "vlm"
    if not folder.is_dir():
        pytest.skip(f"the real pictures are not here: {folder}")
    for name, rows in (("train.jsonl", 57), ("test.jsonl", 13), ("captions.jsonl", 13)):
        path = str(folder / name)
        table = read_source(path, DataSection(train=path), "train")["train"]
        form = chat if "messages" in table.columns else completion
        found = form.resolve_columns(table.columns, Columns(), path)
        read_rows = [form.parse(r, found, path, row, {}) for r, row in zip(table.records, table.rows, strict=True)]
        assert len(read_rows) == rows
        for conversation in read_rows:
            question, answer = said(conversation)
            assert question[1].startswith(P)
            assert len(question[2]) == 1
            assert answer[1]
            assert "<image>" not in question[1] + answer[1]
