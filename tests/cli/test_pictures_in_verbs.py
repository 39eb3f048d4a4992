"""generate, chat, plan and evaluate of a model that sees pictures, as a user calls them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command_line import Outcome
from language_models import write_rows
from lorafy.config import load_config
from picture_files import quarters, saved
from tiny_models import make_config
from trained_runs import train
from vision_folders import save_vision_model

Verb = Callable[..., Outcome]
GREEDY = ("--temperature", "0", "--max_new_tokens", "4")


@pytest.fixture(scope="module")
def seer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step: tiny Qwen3-VL over bytes, three pictures, some rows without. Read it only."""
    folder = tmp_path_factory.mktemp("seer")
    draw(folder)
    rows = [
        {"prompt": f"What is {n}?", "completion": "A picture.", "images": [f"images/{'abc'[n % 3]}.png"] if n else []}
        for n in range(12)
    ]
    data = write_rows(folder / "rows.jsonl", rows)
    base = save_vision_model("qwen3_vl", folder / "base")
    generation = {"temperature": 0.0, "max_new_tokens": 4, "evaluate_prompts": 3}
    config = make_config(
        base, data, data={"validation": str(data)}, train={"max_steps": 1, "batch_size": 2}, generation=generation
    )
    return train(config, folder / "run").path


def draw(folder: Path) -> None:
    (folder / "images").mkdir()
    for turns, name in enumerate(("a.png", "b.png", "c.png", "a cup.png")):
        (folder / "images" / name).write_bytes(saved(quarters().rotate(90 * turns, expand=True)))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with pictures in images/."""
    draw(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def records(outcome: Outcome) -> list[dict[str, Any]]:
    assert outcome.code == 0, outcome.stderr
    return json.loads(outcome.stdout)["answers"]


def asked(outcome: Outcome) -> list[tuple[str, list[str]]]:
    return [(record["prompt"], record["images"]) for record in records(outcome)]


def test_a_question_with_pictures(lorafy: Verb, seer: Path, here: Path) -> None:
    done = lorafy("generate", seer, "--prompt", "What is it?", "--image", "images/a.png")
    assert done.code == 0 and len(done.stdout) > 1, done.stderr
    pictures = ("--image", "images/a.png", "--image", "images/a cup.png")
    names = ["images/a.png", "images/a cup.png"]
    for prompt, written in (("Why?", "<image><image>Why?"), ("Is <image> <image>?", "Is <image> <image>?")):
        assert asked(lorafy("generate", seer, "--prompt", prompt, *pictures, "--json")) == [(written, names)]
    assert asked(lorafy("generate", seer, *pictures, "--json")) == [("<image><image>", names)], "no text is needed"
    both = records(lorafy("generate", seer, "--prompt", "Why?", *pictures, "--compare", "--json"))[0]
    assert list(both) == ["prompt", "images", "base", "tuned"]
    shown = lorafy("generate", seer, "--prompt", "Why?", *pictures, "--compare").stdout
    assert shown.startswith("<image><image>Why?\npicture: images/a.png\npicture: images/a cup.png\n")


FILES: dict[str, list[dict[str, Any]]] = {
    "columns.jsonl": [
        {"prompt": "Hi"},
        {"prompt": "What?", "images": ["images/a.png"]},
        {"prompt": "Is <image> or <image>?", "images": ["images/a.png", "images/b.png"]},
    ],
    "messages.json": [
        {"messages": [{"role": "user", "content": "Hi"}], "images": []},
        {"messages": [{"role": "user", "content": "<image>What?"}], "images": ["images/a.png"]},
        {
            "messages": [{"role": "user", "content": "Is <image> or <image>?"}, {"role": "assistant", "content": "A"}],
            "images": ["images/a.png", "images/b.png"],
        },
    ],
    "sharegpt.jsonl": [
        {"conversations": [{"from": "human", "value": "Hi"}], "images": []},
        {"conversations": [{"from": "human", "value": "What?"}], "images": "images/a.png"},
        {
            "conversations": [{"from": "human", "value": "Is <image> or <image>?"}],
            "images": ["images/a.png", "images/b.png"],
        },
    ],
    "parts.jsonl": [
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"messages": [{"role": "user", "content": [
            {"type": "image", "image": "images/a.png"}, {"type": "text", "text": "What?"},
        ]}]},
        {"messages": [{"role": "user", "content": [
            {"type": "text", "text": "Is "}, {"type": "image_url", "image_url": {"url": "images/a.png"}},
            {"type": "text", "text": " or "}, {"type": "image", "path": "images/b.png"}, {"type": "text", "text": "?"},
        ]}]},
    ],
}  # fmt: skip
"""The same three questions in several forms."""
THREE = [
    ("Hi", []),
    ("<image>What?", ["images/a.png"]),
    ("Is <image> or <image>?", ["images/a.png", "images/b.png"]),
]


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_questions_with_and_without_pictures(
    name: str, lorafy: Verb, seer: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(here / name, FILES[name])
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")  # paths begin at the file, not here
    done = lorafy("generate", seer, "--input", here / name, "--json", *GREEDY)
    assert asked(done) == THREE
    both = [record["tuned"]["text"] for record in records(done)]
    write_rows(here / "one.jsonl", FILES[name][1:2])
    (alone,) = records(lorafy("generate", seer, "--input", here / "one.jsonl", "--json", *GREEDY))
    assert alone["tuned"]["text"] == both[1]


def test_answers_in_a_file_name_the_pictures(lorafy: Verb, seer: Path, here: Path) -> None:
    source = write_rows(here / "in.jsonl", FILES["columns.jsonl"])
    for name in ("out.jsonl", "out.csv"):
        done = lorafy("generate", seer, "--input", source, "--output", here / name, *GREEDY)
        assert done.code == 0 and "3 answers written" in done.stderr
    lines = [json.loads(line) for line in (here / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["prompt"], line["images"]) for line in lines] == THREE
    with (here / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["prompt"], json.loads(row["images"])) for row in rows] == THREE
    again = lorafy("generate", seer, "--input", here / "out.csv", "--json", *GREEDY)
    assert asked(again) == THREE, "what is written can be read"
    lorafy("generate", seer, "--prompt", "Hi", "--output", here / "text.csv", *GREEDY)
    assert (here / "text.csv").read_text(encoding="utf-8").startswith("prompt,tuned\n"), "no column without pictures"


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (
            ["--prompt", "a", "--image", "none.png", "--image", "text.png"],
            ["none.png: no such file", "text.png: not a"],
        ),
        (
            ["--prompt", "<image><image>", "--image", "images/a.png"],
            ["--image: 2 marks <image> in the question, 1 pic"],
        ),
        (["--prompt", "<image>"], ["prompt 1: 1 mark <image>, no picture"]),
        (["--prompt", "a", "--image", "http://a.b/c.png"], ["--image: http://a.b/c.png is an address of the network"]),
        (["--prompt", "a", "--image", ""], ["--image: names no picture"]),
        (["--input", "bad.jsonl", "--image", "images/a.png"], ["--image: no effect with --input"]),
        (["--input", "bad.jsonl"], ["images: 1 mark <image> in the questions, 2 pictures", "(row 2)", "(row 3)"]),
        (["--input", "gone.jsonl"], ["x.png: no such file", "y.png: no such file"]),
    ],
)
def test_what_cannot_be_shown(arguments: list[str], messages: list[str], lorafy: Verb, seer: Path, here: Path) -> None:
    (here / "text.png").write_text("no picture", encoding="utf-8")
    rows: list[dict[str, Any]] = [
        {"prompt": "a"},
        {"prompt": "<image>", "images": ["images/a.png"] * 2},
        {"prompt": "a", "images": 7},
    ]
    write_rows(here / "bad.jsonl", rows)
    write_rows(here / "gone.jsonl", [{"prompt": "a", "images": ["x.png"]}, {"prompt": "a", "images": ["y.png"]}])
    done = lorafy("generate", seer, *arguments)
    assert done.code == 2 and done.stdout == ""
    assert "Traceback" not in done.stderr
    for message in messages:
        assert message in done.stderr


def test_a_model_that_reads_text_alone_refuses_pictures(lorafy: Verb, language_bases: Any, here: Path) -> None:
    model = language_bases["qwen3"]
    done = lorafy("generate", model, "--prompt", "a", "--image", "images/a.png")
    assert done.code == 2 and f"--image: shows pictures, and {model} sees none" in done.stderr
    source = write_rows(here / "in.jsonl", FILES["columns.jsonl"])
    done = lorafy("generate", model, "--input", source)
    assert done.code == 2 and f"--input: shows pictures, and {model} sees none" in done.stderr
    said = talk(lorafy, model, "/image images/a.png", "/image", "exit")
    assert said == ["This model sees no pictures: it reads text alone."] * 2


# chat


def talk(lorafy: Verb, model: Path | str, *lines: str) -> list[str]:
    """What chat prints after its greeting, line by line."""
    done = lorafy("chat", model, *GREEDY, stdin=("\n".join(lines) + "\n").encode())
    assert done.code == 0, done.stderr
    return done.stdout.splitlines()[1:]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names of the pictures that each question came with; the answer is `A`, from the base `B`."""
    from lorafy.inference import chat as chatting
    from lorafy.inference.generate import Answer

    calls: list[list[str]] = []

    def answer(model: Any, encoder: Any, conversations: Any, *rest: Any, on_text: Any, **named: Any) -> list[Answer]:
        calls.append([picture.name for message in conversations[0] for picture in message.pictures])
        on_text("A")
        return [Answer("A", 1, ended=True, looped=False)]

    monkeypatch.setattr(chatting, "generate", answer)
    return calls


def test_chat_shows_pictures_with_the_next_question(lorafy: Verb, seer: Path, here: Path, shown: Any) -> None:
    said = talk(
        lorafy, seer,
        "/image", "/image images/a.png", "/image 'images/a cup.png'", "/image", "What?", "/image", "And?",
        "/base",
    )  # fmt: skip
    one, two = (f"images/{name}, 24 x 16 pixels: goes with the next question." for name in ("a.png", "a cup.png"))
    two = two.replace("24 x 16", "16 x 24")
    none = "No picture waits. /image PATH shows one with the next question."
    assert said == [none, one, two, one, two, "A", none, "A", "The original model:", "A"]
    assert shown == [["images/a.png", "images/a cup.png"]] * 3, "they stay in the conversation, with the base too"


@pytest.mark.parametrize(
    "typed", ["images/a cup.png", "'images/a cup.png'", '"images/a cup.png"', "images/a\\ cup.png"]
)
def test_a_path_as_people_type_and_drop_it(typed: str, lorafy: Verb, seer: Path, here: Path, shown: Any) -> None:
    talk(lorafy, seer, f"/image {typed}", "What?")
    assert shown == [["images/a cup.png"]]


def test_chat_goes_on_after_a_bad_picture(lorafy: Verb, seer: Path, here: Path, shown: Any) -> None:
    (here / "empty.png").write_bytes(b"")
    said = talk(
        lorafy, seer, "/image none.png", "/image empty.png", "/image ~no-such-user/x.png", "/image http://a.b/c.png",
        "Hi", "/image images/a.png", "<image> <image>", "<image>!", "/image images/b.png", "/reset", "Hi", "<image>",
    )  # fmt: skip
    text = "\n".join(said)
    for message in (
        "none.png: no such file", "empty.png: the file is empty", "~no-such-user/x.png: no such file",
        "address of the network", "2 marks <image> in the question, 1 picture", "1 mark <image>, no picture",
    ):  # fmt: skip
        assert message in text
    assert shown == [[], ["images/a.png"], []], "what waited is gone after /reset"


def test_help_tells_of_pictures(lorafy: Verb, seer: Path) -> None:
    assert "/image PATH" in "\n".join(talk(lorafy, seer, "/help"))


# plan, evaluate


def test_plan_shows_a_row_with_its_pictures_places(lorafy: Verb, seer: Path, here: Path) -> None:
    name = "images/[bold]a[red].png"  # which is not markup
    shutil.copy(here / "images" / "a.png", here / name)
    rows: list[dict[str, Any]] = [{"prompt": f"What is {n}?", "completion": "It."} for n in range(6)]
    rows[3] |= {"prompt": "Is <image> or <image>?", "images": [name, "images/b.png"]}
    data = write_rows(here / "train.jsonl", rows)
    base = load_config(seer / "config.yaml").model.path
    recipe = here / "recipe.yaml"
    recipe.write_text(f"model: {{path: {base}}}\ndata: {{train: {data}, validation: {data}}}\n", encoding="utf-8")
    done = lorafy("plan", recipe)
    assert done.code == 0, done.stderr
    assert "Row 4 as it is trained (green: learned; grey: given; blue: a picture)" in done.stdout
    first = f"<|vision_start|>[picture {name}, 10 x 7 tokens]<|vision_end|>"
    second = "<|vision_start|>[picture images/b.png, 7 x 10 tokens]<|vision_end|>"
    assert f"Is {first} or {second}?<|im_end|>" in done.stdout
    assert "<|image_pad|>" not in done.stdout


def test_evaluate_names_the_pictures(lorafy: Verb, seer: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(seer, run)
    done = lorafy("evaluate", run)
    assert done.code == 0, done.stderr
    assert "Q <image>What is 1?\n  shown: images/b.png\n" in done.stdout
    results = json.loads((run / "eval_results.json").read_text(encoding="utf-8"))
    assert "pictures" not in results["samples"][0]
    (picture,) = results["samples"][1]["pictures"]
    assert picture["name"] == "images/b.png" and picture["thumbnail"].startswith("data:image/jpeg;base64,")
    page = (run / "report.html").read_text(encoding="utf-8")
    assert f'<img alt="images/b.png" src="{picture["thumbnail"]}">' in page
    assert "lorafy generate" in page and "--image picture.jpg" in page
