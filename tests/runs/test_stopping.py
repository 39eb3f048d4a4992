"""Stopped by a kill, by a signal, by another process; and continued as the same run."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from processes import PATIENCE_SECONDS, run_cli, start, wait_for_checkpoint

from lorafy import api
from lorafy.config import load_config
from lorafy.run_directory import RunDirectory
from lorafy.training.display import ProgressDisplay
from trained_runs import assert_same_run, kill_after, train

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


@pytest.fixture(autouse=True)
def no_second_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the evaluation needs no process of its own, and nobody looks at pictures."""

    def run_verb(
        verb: str, path: Path, what: str, settings: Sequence[str], *, even_failed: bool = False
    ) -> dict[str, Any]:
        assert verb == "evaluate"
        return api.evaluate(path, settings)

    monkeypatch.setattr(api, "run_verb", run_verb)
    monkeypatch.setattr(api, "draw_report", lambda run, console: None)


@posix_only
def test_kill_9_and_resume_is_the_same_run(stoppable_recipe: Path, uninterrupted: RunDirectory, stoppable):
    run = RunDirectory(stoppable_recipe.parent / "runs" / "stopped")
    process = start("train", stoppable_recipe)
    wait_for_checkpoint(process, run)
    process.kill()
    process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == -signal.SIGKILL and run.trained is None
    step = run.named_step("last")
    assert step is not None and step % 20 == 0 and step % 7 != 0 and step < 130
    assert_same_run(train(load_config(stoppable_recipe), run.path, resume=True), uninterrupted)


@posix_only
def test_sigterm_writes_a_checkpoint_and_a_second_process_is_refused(
    stoppable_recipe: Path, uninterrupted: RunDirectory, monkeypatch, capsys
):
    run = RunDirectory(stoppable_recipe.parent / "runs" / "stopped")
    process = start("train", stoppable_recipe)
    wait_for_checkpoint(process, run)
    process.send_signal(signal.SIGSTOP)  # time to look at a run that is under way
    try:
        assert run_cli(monkeypatch, "train", stoppable_recipe, "--resume") == 2
        assert "another process is training in it" in capsys.readouterr().err
        assert run_cli(monkeypatch, "train", stoppable_recipe) == 2
        assert "already holds a run" in capsys.readouterr().err
        process.send_signal(signal.SIGTERM)
    finally:
        process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 143, said
    step = run.named_step("last")
    assert step is not None and 20 <= step < 130 and run.checkpoint(step).is_dir() and run.trained is None
    assert f"stopped at step {step} of 130" in said and f"lorafy train {run.path} --resume" in said

    assert run_cli(monkeypatch, "train", run.path, "--resume") == 0
    assert_same_run(run, uninterrupted)
    assert run_cli(monkeypatch, "train", run.path, "--resume") == 0
    assert "is finished: there is nothing to resume" in capsys.readouterr().out


def test_sigint_ends_with_130_and_the_last_whole_step(
    stoppable_recipe: Path, uninterrupted: RunDirectory, monkeypatch, capsys
):
    run = RunDirectory(stoppable_recipe.parent / "runs" / "stopped")
    shown = ProgressDisplay.on_step

    def press_ctrl_c(display, stats):
        shown(display, stats)
        if stats.step == 33:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(ProgressDisplay, "on_step", press_ctrl_c)
        assert run_cli(patch, "train", stoppable_recipe) == 130
    assert f"lorafy train {run.path} --resume" in capsys.readouterr().err
    assert run.named_step("last") == 33
    assert run_cli(monkeypatch, "train", stoppable_recipe, "--resume") == 0
    assert_same_run(run, uninterrupted)


@pytest.mark.slow
@posix_only
def test_sigint_to_a_real_process(stoppable_recipe: Path, uninterrupted: RunDirectory):
    run = RunDirectory(stoppable_recipe.parent / "runs" / "stopped")
    process = start("train", stoppable_recipe)
    wait_for_checkpoint(process, run)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130 and "--resume" in said
    assert_same_run(train(load_config(stoppable_recipe), run.path, resume=True), uninterrupted)


def test_another_recipe_is_refused_naming_every_key(stoppable_recipe: Path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        kill_after(patch, 21, KeyError)
        with pytest.raises(KeyError):
            train(load_config(stoppable_recipe), stoppable_recipe.parent / "runs" / "stopped")
    changed = ["train.learning_rate=0.1", "adapter.r=8", "run.seed=7", "data.split=[0.8, 0.1, 0.1]"]
    assert run_cli(monkeypatch, "train", stoppable_recipe, *changed, "--resume") == 2
    assert "differs from the run's in adapter.r, data.split, run.seed, train.learning_rate" in capsys.readouterr().err


def test_nothing_to_resume_is_said(stoppable_recipe: Path, monkeypatch, capsys):
    assert run_cli(monkeypatch, "train", stoppable_recipe, "--resume") == 2
    assert "holds no run" in capsys.readouterr().err


def test_a_directory_with_files_of_another_kind_is_left_alone(stoppable_recipe: Path, monkeypatch, capsys):
    folder = stoppable_recipe.parent / "runs" / "stopped"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("mine", encoding="utf-8")
    assert run_cli(monkeypatch, "train", stoppable_recipe) == 2
    assert "already holds files" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
