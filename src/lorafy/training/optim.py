"""The optimizer, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..config.schema import TrainSection


def make_optimizer(model: Any, config: TrainSection) -> torch.optim.Optimizer:
    """AdamW (betas 0.9 and 0.999); weight decay on matrices, not on biases and norms."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0, fused=True)


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
