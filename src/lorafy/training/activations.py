"""Keep what the backward pass needs, or compute it again: again only where memory asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import psutil
import torch

from ..data.batches import StepPlan
from ..engine.weights import Unsupported
from ..types import ConfigError, Features, Problem
from .paths import PlainPath, StepPath

SHARE_OF_FREE = 0.7
"""The share of the free memory that activations may take; the rest is for gradients, one layer's passing values, and
whatever else the machine does."""


@dataclass(frozen=True)
class Activations:
    """Bytes that the largest micro-batch keeps for its backward pass, and bytes of memory that are free for it."""

    kept_bytes: int
    free_bytes: int

    @property
    def fit(self) -> bool:
        """Whether they fit into their share of the free memory."""
        return self.kept_bytes < SHARE_OF_FREE * self.free_bytes


def fit_into_memory(path: StepPath, wish: Literal["auto"] | bool, found: Activations) -> tuple[StepPath, str | None]:
    """The path to take, and a sentence where it computes activations again (or should and cannot).

    Raises ConfigError where that is wished and the model cannot.
    """
    if wish is False or (wish == "auto" and found.fit):
        return path, None
    reason = (
        f"a micro-batch would keep {found.kept_bytes / 2**30:.1f} GiB, {found.free_bytes / 2**30:.1f} GiB are free"
        if wish == "auto"
        else "train.activation_checkpointing=true"
    )
    try:
        return path.checkpointed(), f"Activation checkpointing: on ({reason}); a step takes about a third longer."
    except Unsupported as error:
        if wish is True:
            fix = "remove it, or lower train.micro_batch_size"
            raise ConfigError(Problem("train.activation_checkpointing", str(error), fix)) from error
        return (
            path,
            f"Activation checkpointing: off though {reason}: {error}. Lower train.micro_batch_size if it fails.",
        )


def measure_activations(path: StepPath, model: Any, features: Sequence[Features], plan: StepPlan) -> Activations:
    """What the largest micro-batch of the heaviest step keeps, extrapolated by tokens from its longest example alone.

    No weight and no random state is changed.
    """
    path = replace(path, model=model) if isinstance(path, PlainPath) else path  # alone, without other processes
    step = heaviest_step(features, plan)
    examples = plan.examples(step)
    longest = max(examples, key=lambda index: len(features[index]))
    batches = path.batches([features[index] for index in examples], examples, 0)
    device = next(model.parameters()).device
    (alone,) = path.batches([features[longest]], [longest], 0)
    kept = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    num_bytes = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal num_bytes
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in kept:
            kept.add(storage.data_ptr())
            num_bytes += storage.nbytes()
        return tensor

    was_training = model.training
    model.train()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        loss = path.loss(alone.to(device)).loss_sum
    del loss
    model.train(was_training)
    most = max(batch.inputs["input_ids"].numel() for batch in batches)
    return Activations(num_bytes * most // alone.inputs["input_ids"].numel(), _free_bytes(device))


def heaviest_step(features: Sequence[Features], plan: StepPlan) -> int:
    """The step of the first epoch with the most tokens, padding not counted."""
    return max(range(plan.steps_per_epoch), key=lambda step: sum(len(features[i]) for i in plan.examples(step)))


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserved
    return psutil.virtual_memory().available
