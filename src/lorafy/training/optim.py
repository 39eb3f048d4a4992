"""The optimizer, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..adapter_contract import ParameterGroup
from ..config.schema import TrainSection
from ..kernels.memory import flatten


def make_optimizer(groups: Sequence[ParameterGroup], config: TrainSection) -> torch.optim.Optimizer:
    """AdamW (betas 0.9 and 0.999); weight decay on matrices, not on biases and norms.

    It sees two tensors a group, of which all its parameters and their gradients become views (kernels/memory.py):
    clipping, the update and setting gradients to zero are a few large operations, not some hundred small ones.
    `lr_scale` of each of its own groups is the factor on the learning rate.
    """
    flat = []
    for group in groups:
        matrices = [parameter for parameter in group.parameters if parameter.ndim >= 2]
        vectors = [parameter for parameter in group.parameters if parameter.ndim < 2]
        for parameters, decay in ((matrices, config.weight_decay), (vectors, 0.0)):
            if parameters:
                flat.append({"params": [flatten(parameters)], "weight_decay": decay, "lr_scale": group.lr_scale})
    return torch.optim.AdamW(flat, lr=0.0, fused=True)


def warmup_steps(config: TrainSection, num_steps: int) -> int:
    """Steps of the warm-up: `warmup` below 1 is a share of all steps, from 1 on a number of steps."""
    return math.ceil(config.warmup * num_steps) if config.warmup < 1 else int(config.warmup)


def learning_rate_at(step: int, num_steps: int, peak: float, config: TrainSection) -> float:
    """The learning rate of a step counted from 1: it rises linearly over the warm-up, then follows the schedule (linear
    and cosine: to 0 after the last step)."""
    warmup = warmup_steps(config, num_steps)
    if step <= warmup:
        return peak * step / warmup
    progress = (step - 1 - warmup) / max(1, num_steps - warmup)
    if config.schedule == "linear":
        return peak * (1 - progress)
    if config.schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * progress))
    return peak
