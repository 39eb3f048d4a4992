"""What is printed obeys nobody: no markup, no codes, whatever a label, a text, a file or a model is called."""

from __future__ import annotations

import ast
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text
from strangers import CSI, LABELS, RED, SCRIPT, WINDOW_TITLE, wild_text, write_wild_data

import lorafy
from command_line import Outcome
from lorafy.machine.console import PlainConsole
from lorafy.machine.printable import MARK, STEERING, json_text, printable

SOURCE = Path(lorafy.__file__).parent
SHOWN = tuple(map(printable, LABELS))


def clean(done: Outcome) -> str:
    """Both streams, in which no code is left."""
    both = done.stdout + done.stderr
    assert not STEERING.search(both), STEERING.findall(both)
    return both


def test_codes_become_marks_and_texts_stay() -> None:
    assert printable(f"a{RED}b{WINDOW_TITLE}c{CSI}d\x7f\re\u202ef\udc80") == (
        f"a{MARK}[31mb{MARK}]0;owned{MARK}c{MARK}2Jd{MARK}{MARK}e{MARK}f{MARK}"
    )
    for text in ("line\nline\ttab", "快速的狐狸", "مرحبا", "e\u0301 \U0001f480 \ufffc"):
        assert printable(text) == text
    assert printable("Windows\r\nends") == "Windows\nends"


def test_json_holds_the_same_value_without_codes() -> None:
    value = {"label": LABELS[1], "text": wild_text(1), "bytes": "\udc80\x7f", "chinese": "狐狸"}
    assert json.loads(json_text(value)) == value
    assert not STEERING.search(json_text(value)) and "狐狸" in json_text(value)


def test_the_console_shows_names_as_they_are() -> None:
    stream = io.StringIO()
    console = PlainConsole(file=stream, width=300)
    table = Table(LABELS[0], LABELS[1])
    table.add_row(Text(RED), "[/b] :smile:")
    console.print("[/a] [bold]x[/bold] :smile:", style="bold")
    console.print(f"{RED}{CSI}", Text(WINDOW_TITLE), table)
    shown = stream.getvalue()
    assert not STEERING.search(shown)
    for text in ("[/a] [bold]x[/bold] :smile:", *SHOWN, "[/b] :smile:"):
        assert text in shown


def test_the_console_still_has_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    PlainConsole(file=stream).print(f"danger{RED}", style="red", highlight=False)
    assert stream.getvalue() == f"\x1b[31mdanger{MARK}[31m\x1b[0m\n", "rich's own are no text of anybody"


@pytest.fixture
def wild_recipe(tmp_path: Path, tiny_bert: Path) -> Path:
    data = write_wild_data(tmp_path / f"[bold]rows{RED}.jsonl")
    tree = {"run": {"output_dir": str(tmp_path / f"runs [/x]{RED}")}, "model": {"path": str(tiny_bert)}}
    path = tmp_path / f"[bold]wild{RED}.yaml"
    path.write_text(yaml.safe_dump(tree | {"data": {"train": str(data)}}), encoding="utf-8")
    return path


def test_prepare_plan_and_config_show_wild_labels(told: Callable[..., Outcome], wild_recipe: Path) -> None:
    for verb in ("prepare", "plan"):
        done = told(verb, wild_recipe)
        assert done.code == 0, done.stderr
        assert SHOWN[0] in clean(done) and SHOWN[1] in clean(done)
    assert MARK in clean(told("config", wild_recipe))
    found = told("prepare", wild_recipe, "--json")
    clean(found)
    assert set(json.loads(found.stdout)["labels"]) == set(LABELS)


def test_columns_named_like_markup_are_labels(told: Callable[..., Outcome], tmp_path: Path, tiny_bert: Path) -> None:
    """`[/a]` as a column's name ended `prepare` with a MarkupError."""
    rows = [{"text": f"text {index}", "[/a]": index % 2, f"[bold]{RED}": (index + 1) % 2} for index in range(40)]
    data = tmp_path / "rows.json"
    data.write_text(json.dumps(rows), encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    columns = {"text": "text", "label": ["[/a]", f"[bold]{RED}"]}
    tree = {"model": {"path": str(tiny_bert)}, "data": {"train": str(data), "columns": columns}}
    recipe.write_text(yaml.safe_dump(tree), encoding="utf-8")
    done = told("prepare", recipe)
    assert done.code == 0, done.stderr
    assert "[/a]" in clean(done) and f"[bold]{MARK}[31m" in clean(done)


def test_mistakes_are_told_without_codes(told: Callable[..., Outcome], tmp_path: Path, wild_recipe: Path) -> None:
    missing = told("train", tmp_path / f"no{RED}such.yaml")
    assert missing.code == 2 and f"no{MARK}[31msuch.yaml" in clean(missing)
    wrong = told("prepare", wild_recipe, f"data.columns.label=[/b]{RED}")
    assert wrong.code == 2 and MARK in clean(wrong)


def test_a_run_with_wild_labels_is_trained_evaluated_and_asked(
    told: Callable[..., Outcome], wild_recipe: Path, wild_run: Path
) -> None:
    trained = told("train", wild_recipe, "train.max_steps=2", "train.batch_size=8")
    assert trained.code == 0, trained.stderr
    assert SHOWN[0] in clean(trained)
    assert SHOWN[0] in clean(told("evaluate", wild_run)) or SHOWN[1] in clean(told("evaluate", wild_run))
    clean(told("verify", wild_run))
    answer = told("predict", wild_run, wild_text(3))
    assert printable(wild_text(3)) in clean(answer)
    found = told("predict", wild_run, wild_text(3), "--json")
    clean(found)
    assert json.loads(found.stdout)["predictions"][0]["text"] == wild_text(3), "JSON is exact"


def test_a_console_of_the_callers_takes_no_markup_from_labels(wild_run: Path, tmp_path: Path, tiny_bert: Path) -> None:
    """rich's own console, as a notebook hands it in, where `[/a]` would be an error and :skull: a picture."""
    data = write_wild_data(tmp_path / "rows.jsonl")
    stream = io.StringIO()
    tree = {"model": {"path": str(tiny_bert)}, "data": {"train": str(data)}, "train": {"max_steps": 2}}
    tree["run"] = {"output_dir": str(tmp_path / "runs [/x]")}
    lorafy.train(tree, console=Console(file=stream, width=400))
    assert f"[/a]{SCRIPT}" in stream.getvalue() and ":skull:" in stream.getvalue()


def test_what_a_model_writes_steers_nothing(told: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are printed as they come, piece by piece."""
    from lorafy import api

    class Loud:
        has_base = sees = False

        def stream(self, messages: object, show: Callable[[str], None], base: bool) -> object:
            for piece in ("It is ", RED, WINDOW_TITLE[:3], WINDOW_TITLE[3:], CSI):
                show(piece)
            return type("Answer", (), {"remark": f"cut [/a]{RED}"})()

    monkeypatch.setattr(api, "load_able", lambda *more: Loud())
    done = told("generate", "model", "--prompt", "which colour?")
    assert done.stdout == f"It is {MARK}[31m{MARK}]0;owned{MARK}{MARK}2J\n"
    assert f"cut [/a]{MARK}[31m" in clean(done)


def test_a_folder_that_names_its_base_with_codes(
    told: Callable[..., Outcome], wild_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gift = tmp_path / f"gift{RED}"
    shutil.copytree(wild_run / "adapter", gift)
    manifest = json.loads((gift / "lorafy.json").read_text(encoding="utf-8"))
    manifest["model"]["path"] = f"stranger/model{CSI}"
    (gift / "lorafy.json").write_text(json.dumps(manifest), encoding="utf-8")
    done = told("predict", gift, "a text")
    assert done.code == 2 and f"from the hub: stranger/model{MARK}2J" in clean(done)


MARKUP = re.compile(r"\[/?(bold|dim|red|green|yellow|blue|cyan|italic|link|on)\b[^\]]*\]|\[/\]")


def test_one_console_and_no_markup_in_the_source() -> None:
    """So that the next message cannot forget it."""
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Console":
                wrong.append(f"{where}: rich's console: take machine/console.py's")
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and MARKUP.search(node.value):
                wrong.append(f"{where}: markup: give a style, or Text.assemble")
    assert wrong == []
