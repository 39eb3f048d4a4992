"""Runs of a tiny model, and what must be equal in two runs that are the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from lorafy.config.schema import RunConfig
from lorafy.plugins import load_method, plugin_names
from lorafy.run_directory import RunDirectory, read_jsonl
from lorafy.training.display import ProgressDisplay
from lorafy.workflows.runs import with_run
from lorafy.workflows.train import run_training

MEASURED = {"seconds", "examples_per_second", "tokens_per_second", "memory_bytes"}
"""Fields of metrics.jsonl that a clock or the operating system decides."""


class Killed(BaseException):
    """Stands for a kill in the middle of a run: nothing catches it."""


def train(config: RunConfig, path: Path, *, resume: bool = False) -> RunDirectory:
    """Trains in `path`; neither evaluates in a fresh process nor draws."""
    run = RunDirectory(path)
    run_training(with_run(config, path), run, resume=resume, console=Console(quiet=True))
    return run


def kill_after(monkeypatch: Any, step: int, error: type[BaseException] = Killed) -> None:
    """The next run ends by `error` when its step `step` is done, before anything of that step is saved."""
    shown = ProgressDisplay.on_step

    def on_step(display: ProgressDisplay, stats: Any) -> None:
        shown(display, stats)
        if stats.step == step:
            raise error

    monkeypatch.setattr(ProgressDisplay, "on_step", on_step)


def trained_tensors(run: RunDirectory) -> dict[str, torch.Tensor]:
    assert run.trained is not None, f"{run.path} is not finished"
    files = [run.trained / load_method(name).weights for name in plugin_names("adapters")]
    path = next(file for file in files if file.is_file())
    return load_file(path)


def metrics(run: RunDirectory) -> list[dict[str, Any]]:
    """metrics.jsonl without what a clock decides."""
    return [{name: value for name, value in r.items() if name not in MEASURED} for r in read_jsonl(run.metrics)]


def assert_same_run(left: RunDirectory, right: RunDirectory) -> None:
    """Bit for bit: every trained tensor, every logged number, the state of the optimizer at the last checkpoint."""
    ours, theirs = trained_tensors(left), trained_tensors(right)
    assert set(ours) == set(theirs)
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different, f"{len(different)} of {len(ours)} tensors differ: {different[:3]}"
    assert metrics(left) == metrics(right)
    step = left.named_step("last")
    assert step is not None and step == right.named_step("last")
    states = [torch.load(run.checkpoint(step) / "optimizer.pt", weights_only=True) for run in (left, right)]
    moments = [state["optimizer"]["state"] for state in states]
    for index, values in moments[0].items():
        for name, value in values.items():
            assert torch.equal(value, moments[1][index][name]), f"optimizer state {name} of parameter {index}"


def whole_and_resumed(
    config: RunConfig, folder: Path, monkeypatch: Any, step: int
) -> tuple[RunDirectory, RunDirectory]:
    """The same run twice: in one sitting, and killed after `step` and resumed."""
    whole = train(config, folder / "whole")
    with monkeypatch.context() as patch:
        kill_after(patch, step)
        with pytest.raises(Killed):
            train(config, folder / "parts")
    return whole, train(config, folder / "parts", resume=True)
