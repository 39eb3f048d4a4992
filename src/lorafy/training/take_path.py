"""Which way a run computes its steps, and whether it keeps activations: decided once, and said to the user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from ..config.schema import TrainSection
from ..data.batches import StepPlan
from ..types import Features
from .activations import fit_into_memory, measure_activations
from .paths import PlainPath, StepPath, choose_path


def take_path(
    plain: PlainPath,
    model: Any,
    section: TrainSection,
    features: Sequence[Features],
    plan: StepPlan,
    console: Console,
    *,
    fast_wanted: bool,
    num_processes: int = 1,
    resumed: bool = False,
) -> tuple[StepPath, bool]:
    """The path by which steps are computed, said to the user; True where it is the fast path."""
    first = [features[index] for index in plan.examples(0)]
    choice = choose_path(
        plain,
        model,
        fast_wanted=fast_wanted,
        num_processes=num_processes,
        features=first,
        keeps_features=section.keep_picture_features,
        resumed=resumed,
    )
    console.print(Text(f"Kernels: {choice.message}"))
    found = measure_activations(choice.path, model, features, plan)
    path, note = fit_into_memory(choice.path, section.activation_checkpointing, found)
    if note:
        console.print(Text(note))
    return path, choice.is_fast
