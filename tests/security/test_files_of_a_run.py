"""What a run's folder may say of other files, and what lorafy writes into one that people pass on."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import lorafy
from command_line import Outcome
from lorafy.machine import environment
from lorafy.machine.environment import describe_environment, without_secrets
from lorafy.run_directory import RunDirectory
from lorafy.types import RunError
from lorafy.workflows.doctor import HubFacts, check_hub
from tiny_models import make_config
from trained_runs import train

TOKEN = "hf_" + "aB3" * 11


@pytest.fixture
def run(tmp_path: Path, tiny_bert: Path, sms_csv: Path) -> RunDirectory:
    settings = {"max_steps": 2, "batch_size": 8, "save_every": 1}
    return train(make_config(tiny_bert, sms_csv, train=settings), tmp_path / "run")


@pytest.mark.parametrize("part", ["plots", "checkpoints", "metrics.jsonl", ".lock", "tensorboard"])
def test_a_link_out_of_a_run_is_not_written_through(run: RunDirectory, tmp_path: Path, part: str) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "loss.png").write_text("a picture of mine", encoding="utf-8")
    (run.path / part).unlink() if (run.path / part).is_file() else shutil.rmtree(run.path / part, ignore_errors=True)
    (run.path / part).symlink_to(mine if part in ("plots", "checkpoints", "tensorboard") else mine / "loss.png")
    with pytest.raises(RunError, match="this link leads out of the run"):
        lorafy.evaluate(run.path)
    run.summary.unlink()
    with pytest.raises(RunError, match="this link leads out of the run"):
        lorafy.train(run.path, resume=True)
    assert (mine / "loss.png").read_text(encoding="utf-8") == "a picture of mine"


def test_a_picture_that_is_a_link_is_not_written_through(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_text("a picture of mine", encoding="utf-8")
    run.plots.mkdir()
    (run.plots / "loss.png").symlink_to(tmp_path / "mine.png")
    with pytest.raises(RunError, match=r"loss.png: this link leads out of the run"):
        lorafy.evaluate(run.path)
    assert (tmp_path / "mine.png").read_text(encoding="utf-8") == "a picture of mine"


def test_a_runs_config_makes_nothing_of_other_files_public(
    told: Callable[..., Outcome], run: RunDirectory, tmp_path: Path
) -> None:
    """Its data may be any file of this disk; scored is only what the run was trained beside, by its sha256."""
    secret = tmp_path / "secret.csv"
    secret.write_text("label,text\n" + 'ham,"the number of my bank account"\n' * 3, encoding="utf-8")
    text = run.config.read_text(encoding="utf-8").replace("  test: null", f"  test: {secret}")
    run.config.write_text(text, encoding="utf-8")
    done = told("evaluate", run.path)
    assert done.code == 2 and "the data changed since training" in done.stderr
    assert not run.report.exists() and not run.eval_results.exists()


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        (f"model.path={TOKEN}", "model.path=***"),
        ("--token=abc", "--token=***"),
        ("https://me:secret@mirror.example/x", "https://***@mirror.example/x"),
        ("https://data.example/a.csv?token=abc&x=1", "https://data.example/a.csv?token=***&x=1"),
        ("ghp_" + "a1" * 18, "***"),
        ("recipes/token_classification.yaml", "recipes/token_classification.yaml"),
        ("data.max_length=128", "data.max_length=128"),
        ("run.name=sk-learn", "run.name=sk-learn"),
    ],
)
def test_tokens_are_not_written_down(word: str, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lorafy", "train", word])
    assert describe_environment()["command"] == ["lorafy", "train", kept]
    assert without_secrets(word) == kept


def test_no_variable_of_the_environment_is_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("MY_OWN", "a word that nobody else would write")
    text = json.dumps(describe_environment())
    assert TOKEN not in text and "a word that nobody" not in text


def test_doctor_tells_no_password_of_a_mirror(tmp_path: Path) -> None:
    for error in (None, "cannot be reached (https://me:secret@mirror.example)"):
        check = check_hub(HubFacts("https://me:secret@mirror.example", False, tmp_path, error, 0.1))
        assert "secret" not in check.found and "mirror.example" in check.found


def test_git_is_not_taken_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows looks there first; elsewhere a PATH may."""
    program = tmp_path / "git"
    program.write_text("#!/bin/sh\ntouch ran\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert environment.git_commit() is None and not (tmp_path / "ran").exists()
