"""What a stranger might hand over: models with code in them, pickles with commands, texts that steer."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import lorafy
from command_line import Outcome
from lorafy import cli

CODE = '''
"""A model whose making is seen: it leaves a mark in its own folder's neighbour."""
from pathlib import Path
from transformers import BertConfig, BertForSequenceClassification

def mark():
    Path({mark!r}).write_text("ran", encoding="utf-8")

class StrangerConfig(BertConfig):
    model_type = "stranger"
    def __post_init__(self, **more):
        mark()
        super().__post_init__(**more)

class StrangerForSequenceClassification(BertForSequenceClassification):
    config_class = StrangerConfig
    def __init__(self, config):
        mark()
        super().__init__(config)
'''


def model_with_code(tiny_bert: Path, folder: Path, mark: Path) -> Path:
    """tiny_bert as a model type of its own, which only the Python file beside its weights knows."""
    shutil.copytree(tiny_bert, folder)
    (folder / "modeling.py").write_text(CODE.format(mark=str(mark)), encoding="utf-8")
    names = {"AutoConfig": "StrangerConfig", "AutoModelForSequenceClassification": "StrangerForSequenceClassification"}
    change_json(
        folder / "config.json", model_type="stranger", auto_map={key: f"modeling.{name}" for key, name in names.items()}
    )
    return folder


def change_json(path: Path, **changes: Any) -> None:
    """Writes these keys over those of a file that holds an object."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


class Command:
    """Unpickled, it writes a file: what a pickle can do, done where a test can see it."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def write_pickle(path: Path, mark: Path) -> None:
    """A file of torch.save that carries a Command beside its tensors; the test of it shows that it works."""
    torch.save({"weight": torch.zeros(1), "more": Command(mark)}, path)
    torch.load(path, weights_only=False)
    assert mark.exists(), "read without weights_only it runs"
    mark.unlink()


@pytest.fixture(scope="module")
def own_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """transformers keeps the code that it runs in the user's cache: here in a folder of the tests."""
    from transformers import dynamic_module_utils

    cache = str(tmp_path_factory.mktemp("modules"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_MODULES_CACHE", cache)
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", cache)
        yield
    sys.path[:] = [path for path in sys.path if path != cache]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """`told("predict", run, "a text")`: what the command line says, in this process."""

    def run(*words: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["lorafy", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        shown = capsys.readouterr()
        assert isinstance(stop.value.code, int), stop.value.code
        return Outcome(stop.value.code, shown.out, shown.err)

    return run


RED, WINDOW_TITLE, CSI = "\x1b[31m", "\x1b]0;owned\x07", "\x9b2J"
SCRIPT = "<script>alert(1)</script>"
LABELS = (f"[/a]{SCRIPT}{RED}", f'=HYPERLINK("http://stranger")[bold]{CSI}:skull:')
"""Names of classes as only a stranger would choose them."""


def wild_text(index: int) -> str:
    words = ("win free call", "home lunch book")[index % 2]
    return f"{words} {SCRIPT} [/b] {WINDOW_TITLE} <img src=x onerror=alert({index})>"


def write_wild_data(path: Path) -> Path:
    """60 labelled texts; names, texts and the file's own name try to steer whatever shows them."""
    rows = [{"text": wild_text(index), "label": LABELS[index % 2]} for index in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def wild_run(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A run over those data, in a folder whose name would be a command. Read it only."""
    folder = tmp_path_factory.mktemp("wild")
    data = write_wild_data(folder / f"[bold]rows{RED}.jsonl")
    base = folder / f"<b>model[/x]{RED}"
    shutil.copytree(tiny_bert, base)
    recipe = {
        "run": {"name": "wild", "output_dir": str(folder / "runs $(touch owned) `id`")},
        "model": {"path": str(base)},
        "data": {"train": str(data)},
        "train": {"max_steps": 4, "batch_size": 8},
    }
    return lorafy.train(recipe, console=Console(quiet=True)).path
