"""Activation checkpointing (Chen et al. 2016): a layer keeps its input alone, and is computed again in the backward
pass. Masks are functions of their place, or on a GPU drawn from the same state, so the second time is the first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def once(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def again(function: Callable[..., Any], *arguments: Any) -> Any:
    on_gpu = any(isinstance(one, torch.Tensor) and one.is_cuda for one in arguments)
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=on_gpu)
