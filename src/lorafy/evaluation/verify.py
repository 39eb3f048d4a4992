"""The proof: what lies on disk is what was trained, merging does not change it, and it is not the base.

Everything here compares logits of the run's probe, a few held-out examples whose logits the training process
wrote beside the weights. The caller loads the models from disk, in a process that trained nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

TOLERANCES = {"float32": 1e-4, "bfloat16": 6e-2, "float16": 1e-2}
"""Largest difference of two logits that are equal but for rounding, relative to the largest logit (at least 1).

float32: about 2**-23 a product, over some dozen layers whose order of summation merging changes.
bfloat16, float16: about 16 units of 2**-8 and 2**-11, for a machine that rounds in another order than the trainer's.
"""
SAME_MACHINE = 1e-5
"""The tolerance where device, precision, threads and torch are the trainer's own: the same products in the same
order."""

DIFFERENT = 1e-5
"""The smallest relative difference from the base, above float32's rounding: an adapter that does less has learned
nothing, or is not in use."""


@dataclass(frozen=True)
class Check:
    """One check. `figure` is held against `tolerance`: at most for equality, more than for difference."""

    name: str
    meaning: str
    passed: bool
    figure: float
    tolerance: float


def relative_difference(left: torch.Tensor, right: torch.Tensor) -> float:
    """max |left - right| over max(1, max |right|). NaN anywhere gives infinity."""
    scale = max(1.0, right.abs().max().item())
    difference = (left.double() - right.double()).abs().max().item() / scale
    return difference if difference == difference else float("inf")


def check_unchanged(found_sha256: str, recorded_sha256: str) -> Check:
    """The file of weights has the sha256 that training recorded; figure: 0, or 1 where it changed."""
    changed = float(found_sha256 != recorded_sha256)
    return Check("file_unchanged", "the weights file has the sha256 that training recorded", not changed, changed, 0.0)


def check_base(found: str, recorded: str) -> Check:
    """The base has the fingerprint that training recorded; figure: 0, or 1 where it changed."""
    changed = float(found != recorded)
    return Check("same_base", "the base model's weights are those it was trained on", not changed, changed, 0.0)


def check_reloaded(reloaded: torch.Tensor, in_memory: torch.Tensor, dtype: str, same_machine: bool) -> Check:
    """Logits of the model from disk against those in memory after training; figure: their relative difference."""
    figure = relative_difference(reloaded, in_memory)
    tolerance = SAME_MACHINE if same_machine else TOLERANCES[dtype]
    meaning = "loaded from disk, the model gives the logits that it gave in memory after training"
    return Check("reloaded_equals_memory", meaning, figure <= tolerance, figure, tolerance)


def check_merged(merged: torch.Tensor, adapter: torch.Tensor) -> Check:
    """Logits of the merged model against those with the adapter, float32; figure: their relative difference."""
    figure, tolerance = relative_difference(merged, adapter), TOLERANCES["float32"]
    meaning = "merged into the base's weights, the adapter gives the same logits (float32)"
    return Check("merged_equals_adapter", meaning, figure <= tolerance, figure, tolerance)


def check_written(written: torch.Tensor, adapter: torch.Tensor, dtype: str) -> Check:
    """Logits of the merged model's file, computed in float32, against those with the adapter; figure: their relative
    difference. dtype: of the file."""
    figure, tolerance = relative_difference(written, adapter), TOLERANCES[dtype]
    meaning = f"written in {dtype} and read again, the merged model gives the logits of the adapter"
    return Check("written_equals_adapter", meaning, figure <= tolerance, figure, tolerance)


def check_differs(trained: torch.Tensor, base: torch.Tensor) -> Check:
    """Logits of the trained model against its base's, float32; figure: their relative difference."""
    figure, tolerance = relative_difference(trained, base), DIFFERENT
    meaning = "its logits differ from those of the base model (a classifier's: under the same head)"
    return Check("differs_from_base", meaning, figure > tolerance, figure, tolerance)


def as_result(checks: list[Check]) -> dict[str, Any]:
    """The `verification` of eval_results.json."""
    values = [asdict(check) for check in checks]
    for value in values:  # JSON has no infinity
        value["figure"] = None if value["figure"] == float("inf") else value["figure"]
    return {"passed": all(check.passed for check in checks), "checks": values}
