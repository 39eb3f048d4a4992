"""The complete state of training at a step, so that a resumed run is the same run.

Random state needs no saving: the order of examples is a function of (seed, epoch), dropout of (seed, step, process).
"""

from __future__ import annotations

import errno
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..adapter_contract import AdapterMethod
from ..run_directory import RunDirectory, read_json, write_atomically, write_json
from ..types import Problem, RunError

WEIGHTS, OPTIMIZER, STATE = "trainable.safetensors", "optimizer.pt", "state.json"
DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES}


@dataclass
class Window:
    """Sums over all targets, examples and steps since the last train line of metrics."""

    loss_sum: float = 0.0
    score_sum: float = 0.0
    num_targets: int = 0
    num_examples: int = 0
    num_tokens: int = 0
    num_steps: int = 0
    seconds: float = 0.0


@dataclass
class Progress:
    """Where a run stands. `seconds` is time spent training, over all its sittings; `fast_steps` took the fast path.
    `awaits_validation`: the validation behind `step` is due and could not be had."""

    step: int = 0
    seconds: float = 0.0
    best_step: int | None = None
    best: list[float] | None = None
    best_metrics: dict[str, float] | None = None
    evaluations_without_gain: int = 0
    stopped_early: bool = False
    awaits_validation: bool = False
    num_threads: int = 0
    fast_steps: int = 0
    window: Window = field(default_factory=Window)


def save_checkpoint(
    run: RunDirectory,
    model: Any,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    method: AdapterMethod,
    progress: Progress,
) -> Path:
    """Writes checkpoints/step-N whole or not at all. Raises RunError on a full disk; earlier checkpoints stand."""

    def write(folder: Path) -> None:
        folder.mkdir()
        save_file(trainable_tensors(model), folder / WEIGHTS)
        with (folder / OPTIMIZER).open("wb") as file:  # torch.save would leave a file open that it cannot finish
            state = {"optimizer": optimizer.state_dict(), "scaler": scaler.state_dict(), "method": method.state(model)}
            torch.save(state, file)
        write_json(folder / STATE, asdict(progress))

    path = run.checkpoint(progress.step)
    with disk_faults(run):
        write_atomically(path, write)
        run.name_step("last", progress.step)
    return path


@contextmanager
def disk_faults(run: RunDirectory) -> Iterator[None]:
    """Raises RunError where the disk is full or cannot be written; what was saved before stands."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        fault = _disk_fault(error)
        if fault is None:
            raise
        step = run.named_step("last")
        last = "no checkpoint was saved yet" if step is None else f"the checkpoint of step {step} is whole"
        free = shutil.disk_usage(run.path).free
        message = f"could not write ({fault}); {free / 2**20:,.0f} MiB are free there; {last}"
        fix = f"free some space, then: lorafy train {run.path} --resume"
        raise RunError(Problem(str(run.path), message, fix)) from error


def _disk_fault(error: BaseException | None) -> str | None:
    """What the operating system said; None where this error is not the disk's."""
    if isinstance(error, RuntimeError):  # torch.save's own, while it handles the OSError
        error = error.__context__
    if isinstance(error, OSError) and error.errno in DISK_FAULTS:
        return str(error.strerror)
    is_disk = isinstance(error, SafetensorError) and "I/O error" in str(error)
    return str(error).rpartition("I/O error: ")[2] if is_disk else None


def load_checkpoint(
    run: RunDirectory,
    step: int,
    model: Any,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    method: AdapterMethod,
) -> Progress:
    """Puts weights, optimizer, scaler and method back to where they were, in place.

    Raises RunError for a checkpoint that an earlier version of lorafy wrote in another form, or a stranger.
    """
    folder = run.checkpoint(step)
    values = read_json(folder / STATE)
    state = _read_tensors(folder / OPTIMIZER)
    if values.keys() != asdict(Progress()).keys() or values["window"].keys() != asdict(Window()).keys():
        message = "another version of lorafy wrote this run's checkpoints, in another form"
        raise RunError(Problem(str(run.path), message, "finish it with that version, or start a new run"))
    load_weights(run, step, model)
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    method.load_state(model, state["method"])
    return Progress(**(values | {"window": Window(**values["window"])}))


def _read_tensors(path: Path) -> dict[str, Any]:
    """What torch.save wrote, tensors and plain values alone: a pickle can hold commands."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        fix = "lorafy did not write it: take a checkpoint of your own, or start a new run"
        raise RunError(Problem(str(path), f"{path.name} holds more than tensors, which is not read", fix)) from error


def load_weights(run: RunDirectory, step: int, model: Any) -> None:
    """Puts the trained tensors of a checkpoint into the model, in place."""
    tensors = load_file(run.checkpoint(step) / WEIGHTS)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert set(tensors) == set(parameters), f"checkpoint {step} does not fit the model that its config describes"
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def trainable_tensors(model: Any) -> dict[str, torch.Tensor]:
    """The tensors that are trained, by name, on the CPU."""
    return {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def remove_later_checkpoints(run: RunDirectory, step: int) -> None:
    """Removes what a kill left behind: checkpoints after the one that last.json names, and half ones."""
    for later in run.saved_steps():
        if later > step:
            shutil.rmtree(run.checkpoint(later))
    for half in run.checkpoints.glob(".*-*"):
        shutil.rmtree(half)


def remove_old_checkpoints(run: RunDirectory, keep: int, best_step: int | None) -> None:
    """Removes all checkpoints but the latest `keep` and the best."""
    for step in run.saved_steps()[:-keep]:
        if step != best_step:
            shutil.rmtree(run.checkpoint(step))
