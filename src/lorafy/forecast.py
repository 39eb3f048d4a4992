"""What training would cost on this machine: measured on a few steps whose gradients are thrown away."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import torch

from .adapters.attach import hold_frozen_weights
from .assemble import BuiltModel, Prepared
from .config import RunConfig
from .data.batches import StepPlan, micro_batches
from .models.precision import Precision
from .training.hardware import peak_memory_bytes
from .training.paths import most_tokens
from .types import Batch

SAMPLED_STEPS = 6
ADAM_BYTES = 12
"""A gradient and two running means for each trainable parameter, four bytes each."""


@dataclass(frozen=True)
class Forecast:
    """`num_tokens` are real tokens of all steps, `padded_share` how much of the computed tokens is padding."""

    num_steps: int
    num_epochs: float
    num_tokens: int
    padded_share: float
    seconds: float
    memory_bytes: int
    sampled_steps: int


def forecast(config: RunConfig, prepared: Prepared, built: BuiltModel, precision: Precision) -> Forecast:
    """Runs forward and backward on evenly spaced steps and on the heaviest one. No weight changes."""
    features = prepared.features["train"]
    plan = StepPlan(len(features), config.train.batch_size, config.run.seed)
    num_steps = plan.num_steps(config.train.num_epochs, config.train.max_steps)
    model = built.model
    hold_frozen_weights(model, precision.dtype)
    model.to(precision.device).train()

    cuts = {step: _cut(config, prepared, plan, precision, step) for step in range(min(num_steps, plan.steps_per_epoch))}
    padded = {step: sum(_padded(prepared, cut) for cut in runs) for step, runs in cuts.items()}
    spaced = sorted(cuts)[:: max(1, len(cuts) // SAMPLED_STEPS)][:SAMPLED_STEPS]
    heaviest = max(padded, key=lambda step: padded[step])
    seconds_per_token = []
    for index, step in enumerate([heaviest, *spaced]):
        batches = [prepared.task.collate([features[row] for row in cut]) for cut in cuts[step]]
        seconds = _measure(model, prepared, batches, precision)
        if index:  # the first also warms up
            seconds_per_token.append(seconds / padded[step])
    epoch_padded = sum(padded.values())
    epoch_real = sum(len(features[row]) for runs in cuts.values() for cut in runs for row in cut)
    rounds = num_steps / len(cuts)
    on_gpu = precision.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else peak_memory_bytes()
    return Forecast(
        num_steps=num_steps,
        num_epochs=num_steps / plan.steps_per_epoch,
        num_tokens=round(epoch_real * rounds),
        padded_share=1 - epoch_real / epoch_padded,
        seconds=mean(seconds_per_token) * epoch_padded * rounds
        + _validation_seconds(config, prepared, built, precision),
        memory_bytes=peak + ADAM_BYTES * built.parameters.trainable,
        sampled_steps=len(spaced),
    )


def _cut(config: RunConfig, prepared: Prepared, plan: StepPlan, precision: Precision, step: int) -> list[list[int]]:
    examples = plan.examples(step)
    return micro_batches(
        examples,
        {row: prepared.task.padded_length(len(prepared.features["train"][row])) for row in examples},
        max_tokens=most_tokens(prepared.task, precision.device),
        max_examples=config.train.micro_batch_size,
    )


def _padded(prepared: Prepared, cut: Sequence[int]) -> int:
    return len(cut) * prepared.task.padded_length(max(len(prepared.features["train"][row]) for row in cut))


def _measure(model: Any, prepared: Prepared, batches: Sequence[Batch], precision: Precision) -> float:
    started = time.perf_counter()
    for batch in batches:
        with precision.autocast():
            output = prepared.task.loss(model, batch.to(precision.device))
        output.loss_sum.backward()
    if precision.device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    model.zero_grad(set_to_none=True)
    return seconds


def _validation_seconds(config: RunConfig, prepared: Prepared, built: BuiltModel, precision: Precision) -> float:
    """Of all evaluations during the run."""
    features = prepared.features.get("validation", [])
    every = config.train.evaluate_every
    if not features or every is None:
        return 0.0
    sample = features[:64]
    built.model.eval()
    started = time.perf_counter()
    prepared.task.measure(built.model, sample, precision)
    seconds = time.perf_counter() - started
    plan = StepPlan(len(prepared.features["train"]), config.train.batch_size, config.run.seed)
    num_steps = plan.num_steps(config.train.num_epochs, config.train.max_steps)
    interval = plan.steps_per_epoch if every == "epoch" else every
    assert isinstance(interval, int)
    tokens = sum(map(len, features)) / sum(map(len, sample))
    return seconds * tokens * max(1, num_steps // interval)
