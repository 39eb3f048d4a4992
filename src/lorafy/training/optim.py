"""The optimizer, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ..config.schema import TrainSection


def make_optimizer(model: Any, config: TrainSection) -> torch.optim.Optimizer:
    """AdamW (betas 0.9 and 0.999); weight decay on matrices, not on biases and norms.

    It sees two tensors, to which all trained parameters and their gradients become views: clipping, the update and
    setting gradients to zero are a few large operations, not some hundred small ones.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices, vectors = [p for p in trained if p.ndim >= 2], [p for p in trained if p.ndim < 2]
    groups = [(matrices, config.weight_decay), (vectors, 0.0)]
    flat = [{"params": [flatten(group)], "weight_decay": decay} for group, decay in groups if group]
    return torch.optim.AdamW(flat, lr=0.0, fused=True)


def flatten(parameters: Sequence[torch.nn.Parameter]) -> torch.nn.Parameter:
    """One tensor that holds the parameters one behind the other; they and their gradients, zero, become its views."""
    flat = torch.nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    flat.grad = torch.zeros_like(flat)
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, values, grad in zip(parameters, flat.data.split(sizes), flat.grad.split(sizes), strict=True):
        parameter.data = values.view_as(parameter)
        parameter.grad = grad.view_as(parameter)
    return flat


def warmup_steps(config: TrainSection, num_steps: int) -> int:
    """`warmup` below 1 is a share of all steps, from 1 on a number of steps."""
    return math.ceil(config.warmup * num_steps) if config.warmup < 1 else int(config.warmup)


def learning_rate_at(step: int, num_steps: int, peak: float, config: TrainSection) -> float:
    """For the step counted from 1: rises linearly over the warm-up, then follows the schedule to 0 after the last."""
    warmup = warmup_steps(config, num_steps)
    if step <= warmup:
        return peak * step / warmup
    progress = (step - 1 - warmup) / max(1, num_steps - warmup)
    if config.schedule == "linear":
        return peak * (1 - progress)
    if config.schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * progress))
    return peak
