"""What training would cost on this machine: measured on a few steps whose gradients are thrown away."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console

from ..engine.fast_path import FastPath
from ..engine.tower import Tower
from ..models.precision import Precision
from ..training.activations import heaviest_step
from ..training.hardware import peak_memory_bytes
from ..training.paths import PlainPath, StepPath
from ..training.take_path import take_path
from ..types import Batch, Features
from .build import BuiltModel
from .prepare import Prepared

SAMPLED_STEPS = 12
ADAM_BYTES = 12
"""Bytes for each trainable parameter: a gradient and two running means, four bytes each."""


@dataclass(frozen=True)
class Forecast:
    """What training would cost. `num_tokens` are real tokens of all steps, `padded_share` how much of the computed
    tokens is padding, `seconds` with all validations."""

    num_steps: int
    num_epochs: float
    num_tokens: int
    padded_share: float
    seconds: float
    memory_bytes: int
    sampled_steps: int
    is_fast: bool
    pictures: PictureCost | None = None


@dataclass(frozen=True)
class PictureCost:
    """What a frozen tower's features cost, each of `num_pictures` different pictures looked at once, and what that
    saves: `seconds` of looking, against `seconds_saved` for looking at every step. `disk_bytes` is what goes beyond the
    memory's share."""

    num_pictures: int
    memory_bytes: int
    disk_bytes: int
    seconds: float
    seconds_saved: float


def forecast(prepared: Prepared, built: BuiltModel, precision: Precision, console: Console) -> Forecast:
    """Runs forward and backward on evenly spaced steps and on the heaviest one, on the path that training would take.
    No weight changes."""
    config, features, model = prepared.config, prepared.features["train"], built.model
    plan, num_steps = prepared.plan, prepared.num_steps
    built.hold_frozen(precision.dtype)
    model.to(precision.device).train()
    plain = PlainPath(model, prepared.task, precision, config.train.micro_batch_size)
    wanted = config.train.kernels == "auto"
    path, is_fast = take_path(plain, model, config.train, features, plan, console, fast_wanted=wanted)

    steps = range(min(num_steps, plan.steps_per_epoch))
    spaced = steps[:: max(1, len(steps) // SAMPLED_STEPS)][:SAMPLED_STEPS]
    seconds, real, computed = 0.0, 0, 0
    looks = Looks(path.tower if isinstance(path, FastPath) else None)
    for index, step in enumerate([heaviest_step(features, plan), *spaced]):
        examples = plan.examples(step)
        batches = path.batches([features[row] for row in examples], examples, step)
        looks.look(batches)
        needed = _measure(model, path, batches, precision)
        if index:  # the first also warms up
            seconds += needed
            real += sum(len(features[row]) for row in examples)
            computed += sum(batch.inputs["input_ids"].numel() for batch in batches)
    num_tokens = round(sum(map(len, features)) * num_steps / plan.steps_per_epoch)
    pictures = looks.cost(features, num_steps / plan.steps_per_epoch)
    on_gpu = precision.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else peak_memory_bytes()
    return Forecast(
        num_steps=num_steps,
        num_epochs=num_steps / plan.steps_per_epoch,
        num_tokens=num_tokens,
        padded_share=1 - real / computed,
        seconds=seconds / real * num_tokens
        + _validation_seconds(prepared, built, precision)
        + (0.0 if pictures is None else pictures.seconds),
        memory_bytes=peak + ADAM_BYTES * built.parameters.trainable,
        sampled_steps=len(spaced),
        is_fast=is_fast,
        pictures=pictures,
    )


@dataclass
class Looks:
    """Measures how long a tower that remembers looks at pictures, apart from the steps that show them."""

    tower: Tower | None
    seconds: float = 0.0
    num_tokens: int = 0
    num_bytes: int = 0
    _seen: set[str] = field(default_factory=set)

    def look(self, batches: Sequence[Batch]) -> None:
        """Shows the tower what it has not seen of these batches."""
        if self.tower is None or not self.tower.remembers:
            return
        for picture in (picture for batch in batches for picture in batch.pictures):
            if picture.picture.sha256 not in self._seen:
                started = time.perf_counter()
                self.num_bytes += self.tower([picture]).nbytes
                self.seconds += time.perf_counter() - started
                self.num_tokens += picture.num_tokens
                self._seen.add(picture.picture.sha256)

    def cost(self, features: Sequence[Features], num_epochs: float) -> PictureCost | None:
        """Of a whole run; None where nothing was measured."""
        if self.tower is None or not self.num_tokens:
            return None
        shown = [picture for feature in features for picture in feature.pictures]
        different = {picture.picture.sha256: picture.num_tokens for picture in shown}
        per_token = self.seconds / self.num_tokens
        num_bytes = self.num_bytes * sum(different.values()) // self.num_tokens
        in_memory = min(num_bytes, self.tower.store.limit_bytes)
        once = per_token * sum(different.values())
        always = per_token * sum(picture.num_tokens for picture in shown) * num_epochs
        return PictureCost(len(different), in_memory, num_bytes - in_memory, once, max(0.0, always - once))


def _measure(model: Any, path: StepPath, batches: Sequence[Batch], precision: Precision) -> float:
    started = time.perf_counter()
    for batch in batches:
        path.loss(batch.to(precision.device)).loss_sum.backward()
    if precision.device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    model.zero_grad(set_to_none=True)
    return seconds


def _validation_seconds(prepared: Prepared, built: BuiltModel, precision: Precision) -> float:
    """The seconds that all validations of the run take together."""
    features = prepared.features.get("validation", [])
    every = prepared.config.train.evaluate_every
    if not features or every is None:
        return 0.0
    sample = features[:64]
    built.model.eval()
    started = time.perf_counter()
    prepared.task.measure(built.model, sample, precision)
    seconds = time.perf_counter() - started
    interval = prepared.plan.steps_per_epoch if every == "epoch" else every
    assert isinstance(interval, int)
    tokens = sum(map(len, features)) / sum(map(len, sample))
    return seconds * tokens * max(1, prepared.num_steps // interval)
