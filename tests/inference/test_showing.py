"""Questions with pictures: how they are named and placed, and that a batch answers as each question alone."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from language_models import assistant, byte_tokenizer, make_language_model, user
from lorafy.config.schema import GenerationSection, ModelSection
from lorafy.encoding.conversations import ConversationEncoder
from lorafy.encoding.prompt import make_renderer
from lorafy.inference.chat import Chat
from lorafy.inference.generate import generate, stop_ids
from lorafy.inference.language_model import LanguageModel
from lorafy.inference.showing import seen, shown_to, user_turn
from lorafy.models.load import open_source
from lorafy.models.precision import Precision
from lorafy.tasks import load_kind
from lorafy.types import PICTURE_MARK, DataError, Message, Picture, UserError
from lorafy.workflows.load import load_trained
from picture_files import quarters, saved
from vision_folders import save_vision_model
from vision_models import VISION_MODELS

PLAIN = Precision(torch.float32, torch.device("cpu"))
GREEDY = GenerationSection(temperature=0.0, max_new_tokens=8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models of both families over bytes, folders to load from."""
    return {name: save_vision_model(name, tmp_path_factory.mktemp(name)) for name in VISION_MODELS}


@pytest.fixture(scope="module")
def onlookers(folders: dict[str, Path]) -> dict[str, tuple[Any, Any]]:
    """Model and encoder of each family, with weights so large that what is shown changes what is written."""
    made = {}
    for name, folder in folders.items():
        source = open_source(ModelSection(path=str(folder), dtype="float32"))
        task: Any = load_kind("vision_language").of_model(source)
        model = task.load_base(source.section, 0).model.eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter *= 8
        made[name] = (model, task.encoder)
    return made


def drawn(folder: Path, name: str = "quarters.png", turned: int = 0) -> Path:
    """A small picture, written."""
    path = folder / name
    path.write_bytes(saved(quarters().rotate(turned)))
    return path


def mixed(images: Path) -> list[list[Message]]:
    """No picture; one; two; one in an earlier turn; two in two turns. No two as long as each other."""
    astronaut, brick, cup = (str(images / name) for name in ("astronaut.jpg", "brick.png", "coffee.jpg"))
    return seen(
        [
            [user("Who are you?")],
            [user_turn("What is this?", [cup])],
            [user_turn("Compare <image> with <image>, please.", [brick, astronaut])],
            [user_turn("What is it?", [brick]), assistant("A wall."), user("Of what colour?")],
            [user_turn("And?", [astronaut]), assistant("A woman."), user_turn("And this, <image>?", [cup])],
        ]
    )


def one_by_one(model: Any, encoder: Any, question: list[Message], most: int) -> str:
    """The likeliest token after the whole sequence so far, again and again: no cache, no padding, no library."""
    prompt = encoder.ask(question)
    written: list[int] = []
    with torch.inference_mode():
        while len(written) < most:
            longer = replace(
                prompt, input_ids=[*prompt.input_ids, *written], labels=[-100] * (len(prompt) + len(written))
            )
            token = int(model(**encoder.prompts([longer]), use_cache=False).logits[0, -1].argmax())
            if token in stop_ids(model, encoder):
                break
            written.append(token)
    return encoder.renderer.written(written)


@pytest.mark.parametrize("name", VISION_MODELS)
def test_a_batch_with_and_without_pictures_answers_as_each_alone(
    onlookers: dict[str, tuple[Any, Any]], name: str, shared_data: Path
) -> None:
    model, encoder = onlookers[name]
    questions = mixed(shared_data / "vlm" / "images")
    assert len({len(encoder.ask(question)) for question in questions}) == len(questions), "all but one are padded"
    together = generate(model, encoder, questions, GREEDY, PLAIN)
    assert together == [generate(model, encoder, [question], GREEDY, PLAIN)[0] for question in questions]
    assert [answer.text for answer in together] == [one_by_one(model, encoder, asked, 8) for asked in questions]
    other = user_turn("What is this?", [str(shared_data / "vlm" / "images" / "brick.png")])
    changed = generate(model, encoder, seen([[other]]), GREEDY, PLAIN)[0]
    assert changed != together[1], "the picture has a part in the answer"


def test_pictures_stand_before_the_question_or_at_its_marks() -> None:
    mark = PICTURE_MARK
    assert user_turn("What?") == user("What?")
    assert user_turn("What?", ["a.png", Path("b.png")]) == Message(
        "user", f"{mark}{mark}What?", (Picture("a.png", "a.png"), Picture("b.png", "b.png"))
    )
    assert user_turn("Is <image> like <image>?", ["a.png", "b.png"]).content == f"Is {mark} like {mark}?"
    assert user_turn("", ["a.png"]).content == mark, "a picture alone is a question"


@pytest.mark.parametrize(
    ("text", "shown", "message"),
    [
        ("<image> and <image>", ["a.png"], "2 marks <image> in the question, 1 picture"),
        ("<image>", ["a.png", "b.png"], "1 mark <image> in the question, 2 pictures"),
        ("a", ["http://example.com/a.png"], "http://example.com/a.png is an address of the network"),
        ("a", [""], "names no picture"),
        (f"a {PICTURE_MARK}", ["a.png"], "U+FFFC"),
    ],
)
def test_what_cannot_be_placed(text: str, shown: list[str], message: str) -> None:
    with pytest.raises(DataError) as refused:
        user_turn(text, shown)
    assert message in str(refused.value)


def test_every_picture_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    shown = [str(tmp_path / "empty.png"), str(tmp_path / "none.png"), str(drawn(tmp_path))]
    with pytest.raises(DataError) as refused:
        seen([[user_turn("a", shown)]])
    assert [Path(problem.where).name for problem in refused.value.problems] == ["empty.png", "none.png"]


def test_a_mark_without_a_picture_is_refused_by_a_model_that_sees(
    onlookers: dict[str, tuple[Any, Any]], tmp_path: Path
) -> None:
    _, encoder = onlookers["qwen3_vl"]
    part = Message("user", f"{PICTURE_MARK} <image>", (Picture("a", str(drawn(tmp_path))),))
    with pytest.raises(DataError) as refused:
        shown_to(encoder, [[user("a")], [user("<image> <image>")], [part]])
    assert [(problem.where, problem.message) for problem in refused.value.problems] == [
        ("prompt 2", "2 marks <image>, no picture"),
        ("prompt 3", "1 mark <image>, 1 picture with places of their own"),
    ]
    tokenizer = byte_tokenizer(chat=True)
    blind = ConversationEncoder(make_renderer(tokenizer), 128, 128)
    assert shown_to(blind, [[user("<image>")]]) == [[user("<image>")]], "there it is text like any other"


# From Python


def test_the_notebooks_model_takes_paths_and_messages(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn(tmp_path, "a b.png")
    trained = load_trained(folders["qwen3_vl"])
    model: LanguageModel = trained.task.ready(trained, GREEDY, 0)
    assert model.sees
    by_path = model.generate(["What?", "Hi"], pictures=[["a b.png"], []])
    messages = [[user_turn("<image>What?", [Path("a b.png")])], [user("Hi")]]
    assert by_path == model.generate(messages)
    talk = model.chat()
    assert talk.ask("What?", pictures=["a b.png"]) == by_path[0]
    for prompts, pictures, message in (
        (["a", "b"], [["a b.png"]], "1 lists of pictures for 2 prompts"),
        (messages[:1], [["a b.png"]], "beside a prompt that is messages"),
        (["a"], [["none.png"]], "no such file"),
    ):
        with pytest.raises(UserError) as refused:
            model.generate(prompts, pictures=pictures)
        assert message in str(refused.value)


# Chat


def onlooker_chat(onlookers: dict[str, tuple[Any, Any]], context: int = 512) -> Chat:
    model, encoder = onlookers["qwen3_vl"]
    return Chat(lambda _: nullcontext(model), replace(encoder, context_length=context), GREEDY, PLAIN)


def test_chat_remembers_pictures(onlookers: dict[str, tuple[Any, Any]], tmp_path: Path) -> None:
    chat = onlooker_chat(onlookers)
    first = chat.ask("What is it?", pictures=[drawn(tmp_path)])
    second = chat.ask("And why?")
    assert [len(message.pictures) for message in chat.history] == [1, 0, 0, 0]
    (picture,) = chat.history[0].pictures
    assert picture.sha256 and (picture.width, picture.height) == (24, 16)
    asked = [chat.history[0], assistant(first.text), user("And why?")]
    model, encoder = onlookers["qwen3_vl"]
    assert generate(model, encoder, [asked], GREEDY, PLAIN) == [second]


def test_forgotten_turns_take_their_pictures_along(onlookers: dict[str, tuple[Any, Any]], tmp_path: Path) -> None:
    chat = onlooker_chat(onlookers, context=300)
    for number in range(4):
        chat.ask(f"q{number}", pictures=[drawn(tmp_path, f"{number}.png", turned=90 * number)])
        assert len(chat.encoder.ask(chat.history[:-1])) <= 300 - 8, "room for a full answer"
    assert chat.num_forgotten > 0
    kept = [Path(picture.name).name for message in chat.history for picture in message.pictures]
    assert kept == [f"{number}.png" for number in range(chat.num_forgotten, 4)]


def test_a_bad_picture_leaves_the_conversation_as_it_was(onlookers: dict[str, tuple[Any, Any]], tmp_path: Path) -> None:
    chat = onlooker_chat(onlookers)
    chat.ask("Hi")
    before = list(chat.history)
    for question, shown in (("a", ["none.png"]), ("<image>", []), ("<image><image>", [str(drawn(tmp_path))])):
        with pytest.raises(DataError):
            chat.ask(question, pictures=shown)
    assert chat.history == before


def test_a_model_that_reads_text_alone_says_so(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(chat=True)
    encoder = ConversationEncoder(make_renderer(tokenizer), 128, 128)
    model = make_language_model("qwen3", len(tokenizer))
    chat = Chat(lambda _: nullcontext(model), encoder, GREEDY, PLAIN)
    assert not chat.sees
    with pytest.raises(DataError, match="this model sees no pictures: it reads text alone"):
        chat.ask("What?", pictures=[drawn(tmp_path)])
    assert chat.history == []
