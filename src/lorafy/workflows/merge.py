"""An adapter that was trained on a quantised base, merged: into what the base computes with, or into the original."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..evaluation import verify as verification
from ..inference.trained import Trained, outputs_on_probe
from ..models.quantise import dequantise
from ..models.trained_files import save_merged
from ..run_directory import write_atomically
from ..types import ConfigError, Problem
from .evaluate import PLAIN

DEQUANTISED, ORIGINAL = "dequantised", "original"


@dataclass(frozen=True)
class Merged:
    """One base with the adapter merged into it in float32, and logits on the probe: of that base, of the adapter on it,
    and merged."""

    model: Any
    base: torch.Tensor
    adapter: torch.Tensor
    merged: torch.Tensor


def which_base(into: str | None, trained: Trained, is_packed: bool) -> str:
    """The base to merge into. Raises ConfigError where `into` is none, or has no effect."""
    if into is not None and into not in (DEQUANTISED, ORIGINAL):
        raise ConfigError(Problem("--into", f"should be {DEQUANTISED} or {ORIGINAL}, not '{into}'"))
    if into is not None and not is_packed:
        message = "no effect: the base was not quantised, so there is one base to merge into"
        raise ConfigError(Problem("--into", message, "remove it"))
    if into == ORIGINAL and trained.section.quantise is None:
        message = f"{trained.section.path} is quantised itself: what it was made of is not known here"
        raise ConfigError(Problem("--into", message, f"use --into {DEQUANTISED}"))
    return into or DEQUANTISED


def merge_packed(trained: Trained, output: Path, into: str, load: Callable[[Path], Trained]) -> dict[str, Any]:
    """Writes the model, reloads and compares: {"output", "into", "verification", "note"}.

    trained: LOADED; its weights are let go. load: loads what was written.
    """
    inputs = trained.probe()
    learned, base = trained.logits(inputs, PLAIN), trained.base_logits(inputs, PLAIN)
    trained.release()
    has_original = trained.section.quantise is not None
    # Only the last one, which is written, stays in memory.
    others = [name for name in (DEQUANTISED, ORIGINAL) if name != into and (name == DEQUANTISED or has_original)]
    apart = {name: _apart(_merged(trained, name, inputs), learned, base) for name in others}
    chosen = _merged(trained, into, inputs)
    apart[into] = _apart(chosen, learned, base)
    # On the de-quantised base the adapter must do what it did on the quantised one.
    adapter = learned if into == DEQUANTISED else chosen.adapter
    checks = [verification.check_merged(chosen.merged, adapter)]
    dtype = trained.precision.dtype
    chosen.model.to(dtype)
    reader = trained.task.write_reader
    # transformers cannot turn the names of a folder that was quantised itself back.
    write_atomically(output, lambda to: save_merged(chosen.model, reader, to, names_of_folder=has_original))
    written = load(output).logits(inputs, PLAIN)
    checks.append(verification.check_written(written, adapter, trained.precision.name))
    note = _note(into, trained.section.quantise, *apart[ORIGINAL]) if has_original else None
    return {"output": str(output), "into": into, "verification": verification.as_result(checks), "note": note}


@torch.no_grad()
def _merged(trained: Trained, name: str, inputs: Any) -> Merged:
    section, method, folder = trained.section, trained.method, trained.folder
    assert method is not None and folder is not None, "only what was trained has something to merge"
    if name == ORIGINAL:
        section = section.model_copy(update={"quantise": None})
    seed = 0 if trained.manifest is None else trained.manifest.seed

    def load_base() -> Any:
        base = trained.task.load_base(section, seed)
        if name == DEQUANTISED:
            dequantise(base.model)
        return base

    def outputs(model: Any) -> torch.Tensor:
        return outputs_on_probe(trained.task, model.eval(), inputs, PLAIN)

    base = load_base()
    model = method.load(base.model, folder, base.head)
    with method.as_base(model.eval(), base.head, lambda: load_base().model) as as_base:
        alone = outputs(as_base)
    adapter = outputs(model)
    merged = method.merge(model)
    return Merged(merged, alone, adapter, outputs(merged))


def _apart(merged: Merged, learned: torch.Tensor, base: torch.Tensor) -> tuple[float, float]:
    """How far its logits are from those of the adapter on the quantised base, and the base's from the quantised base's,
    relative to the largest."""
    difference = verification.relative_difference
    return difference(merged.merged, learned), difference(merged.base, base)


def _note(into: str, form: str | None, adapted: float, base: float) -> str:
    """What became of the model, and how the other one differs."""
    moves = f"{adapted:.1%} of the largest logit on the probe ({form} itself moves the base's by {base:.1%})"
    if into == DEQUANTISED:
        return (
            f"This is the model that was trained and evaluated: the base as {form} gives it back, with the adapter. "
            f"Merged into the original base (--into {ORIGINAL}) its outputs would move by {moves}"
        )
    return (
        f"This is not the model that was trained: the adapter learned on the base as {form} gives it back, and lies "
        f"now on the original one. Its outputs moved by {moves}. Evaluate it before you use it"
    )
