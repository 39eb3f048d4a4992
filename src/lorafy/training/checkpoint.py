"""The complete state of training at a step, so that a resumed run is the same run.

Random state needs no saving: the order of examples is a function of (seed, epoch), dropout of (seed, step, process).
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..run_directory import RunDirectory, read_json, write_atomically, write_json
from ..types import Problem, RunError

WEIGHTS, OPTIMIZER, STATE = "trainable.safetensors", "optimizer.pt", "state.json"


@dataclass
class Window:
    """Sums since the last line of metrics."""

    loss_sum: float = 0.0
    num_correct: int = 0
    num_targets: int = 0
    num_tokens: int = 0
    num_steps: int = 0
    seconds: float = 0.0


@dataclass
class Progress:
    """Where a run stands. `seconds` is time spent training, over all its sittings."""

    step: int = 0
    seconds: float = 0.0
    best_step: int | None = None
    best: list[float] | None = None
    evaluations_without_gain: int = 0
    stopped_early: bool = False
    num_threads: int = 0
    window: Window = field(default_factory=Window)


def save_checkpoint(
    run: RunDirectory,
    model: Any,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    progress: Progress,
) -> Path:
    """Writes checkpoints/step-N whole or not at all. Raises RunError on a full disk; earlier checkpoints stand."""

    def write(folder: Path) -> None:
        folder.mkdir()
        save_file(trainable_tensors(model), folder / WEIGHTS)
        torch.save({"optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}, folder / OPTIMIZER)
        write_json(folder / STATE, asdict(progress))

    path = run.checkpoint(progress.step)
    try:
        write_atomically(path, write)
        run.name_step("last", progress.step)
    except (
        OSError,
        RuntimeError,
        SafetensorError,
    ) as error:  # torch.save reports a full disk as a RuntimeError
        raise RunError(_unsaved(run, path, error)) from error
    return path


def _unsaved(run: RunDirectory, path: Path, error: Exception) -> Problem:
    steps = run.saved_steps()
    last = f"the checkpoint of step {steps[-1]} is whole" if steps else "there is no earlier checkpoint"
    free = shutil.disk_usage(run.path).free
    message = f"could not write the checkpoint ({error}); {free / 2**20:,.0f} MiB are free there; {last}"
    return Problem(str(path), message, f"free some space, then: lorafy train {run.path} --resume")


def load_checkpoint(
    run: RunDirectory, step: int, model: Any, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> Progress:
    folder = run.checkpoint(step)
    load_weights(run, step, model)
    state = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True)
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    values = read_json(folder / STATE)
    return Progress(**(values | {"window": Window(**values["window"])}))


def load_weights(run: RunDirectory, step: int, model: Any) -> None:
    tensors = load_file(run.checkpoint(step) / WEIGHTS)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert set(tensors) == set(parameters), f"checkpoint {step} does not fit the model that its config describes"
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def trainable_tensors(model: Any) -> dict[str, torch.Tensor]:
    return {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def remove_old_checkpoints(run: RunDirectory, keep: int, best_step: int | None) -> None:
    """Keeps the latest `keep` and the best."""
    for step in run.saved_steps()[:-keep]:
        if step != best_step:
            shutil.rmtree(run.checkpoint(step))
