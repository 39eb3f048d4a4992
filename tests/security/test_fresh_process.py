"""Nothing is imported from the folder where one stands: there may lie data of others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lorafy.workflows.fresh_process import run_verb

IN_THE_WAY = ("datasets", "random", "yaml", "peft")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bert: Path, sms_csv: Path) -> Path:
    """The current folder, with modules in it that are called like libraries and leave a mark; and a recipe."""
    for name in IN_THE_WAY:
        (tmp_path / f"{name}.py").write_text("open('ran', 'w').close()\nraise SystemExit(7)\n", encoding="utf-8")
    tree = {"model": {"path": str(tiny_bert)}, "data": {"train": str(sms_csv)}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_they_would_run_elsewhere(here: Path) -> None:
    done = subprocess.run([sys.executable, "-c", "import datasets"], check=False)
    assert done.returncode == 7 and (here / "ran").exists()


@pytest.mark.parametrize("path", ["as it is", "with an empty entry"])
def test_the_process_that_evaluates_does_not_see_them(here: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if path == "with an empty entry":
        monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", "") + os.pathsep)
    found = run_verb("prepare", here / "recipe.yaml", "the preparation")
    assert found["splits"]["train"]["rows"] == 56 and not (here / "ran").exists()


def test_nor_does_python_m_lorafy(here: Path) -> None:
    command = [sys.executable, "-m", "lorafy", "prepare", "recipe.yaml", "--json"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert not (here / "ran").exists()
