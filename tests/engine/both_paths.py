"""The plain path and the fast one over the same tiny model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lorafy.engine.fast_path import FastPath, build_fast_path
from lorafy.kernels import reference
from lorafy.models.parameters import hold_frozen_weights
from lorafy.models.precision import Precision
from lorafy.training.paths import PlainPath, StepPath
from lorafy.types import Features
from tiny_models import build, make_config

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Both:
    model: Any
    features: Sequence[Features]
    plain: PlainPath
    fast: FastPath

    def by_reference(self) -> FastPath:
        """The fast path by the operations in plain torch."""
        return replace(self.fast, ops=reference)


def build_plain(
    base: Path, data: Path, adapter: dict[str, Any], dtype: torch.dtype = torch.float32, **columns: Any
) -> tuple[PlainPath, Sequence[Features]]:
    """The plain path, its model in eval mode, and some examples.

    Labels are three to one: of equally many of each the gradients all but cancel, and what is left is rounding.

    Every parameter, frozen or not, is moved from where architectures start it: there B and biases are zero and norms
    are one, and an error in them would not be seen.
    """
    config = make_config(base, data, adapter=adapter, data={"columns": columns} if columns else {})
    built, prepared = build(config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in built.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    hold_frozen_weights(built.model, dtype)
    plain = PlainPath(built.model.eval(), prepared.task, Precision(dtype, CPU), None)
    features = prepared.features["train"]
    of_first, others = (
        [feature for feature in features if (feature.labels[-1] == features[0].labels[-1]) is same]
        for same in (True, False)
    )
    return plain, [*of_first[:12], *others[:4]]


def build_both(
    base: Path, data: Path, adapter: dict[str, Any], dtype: torch.dtype = torch.float32, **columns: Any
) -> Both:
    plain, features = build_plain(base, data, adapter, dtype, **columns)
    return Both(plain.model, features, plain, build_fast_path(plain.model, plain.task.objective, dtype, CPU, None))


def loss_and_gradients(
    path: StepPath, model: Any, features: Sequence[Features], seed: int | None = None
) -> dict[str, torch.Tensor]:
    """Of the sum over all examples, by name; every trained parameter has a gradient. Leaves none behind."""
    loss_sum = torch.zeros((), dtype=torch.float64)
    for batch in path.batches(features, range(len(features)), seed):
        loss = path.loss(batch).loss_sum
        assert loss.dtype == torch.float32
        loss.backward()
        loss_sum += loss.item()
    found = {"loss": loss_sum}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} has no gradient"
            found[name] = parameter.grad.clone()
            parameter.grad = None
        else:
            assert parameter.grad is None, name
    return found


def joined(found: dict[str, torch.Tensor]) -> torch.Tensor:
    """All gradients together, float64."""
    return torch.cat([tensor.double().flatten() for name, tensor in found.items() if name != "loss"])


def largest_difference(found: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> float:
    """Over the loss and each gradient: the length of the difference, in units of the tensor's own length.

    What is below the rounding of all gradients together counts as zero: attention does not see a shift of its scores,
    so a key's bias, or what reaches a key alone, may have no gradient but that.
    """
    assert set(found) == set(exact)
    floor = 2**-23 * joined(exact).norm()
    return max(
        ((found[name].double() - expected.double()).norm() / (expected.double().norm() + floor)).item()
        for name, expected in exact.items()
    )
