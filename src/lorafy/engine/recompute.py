"""Activation checkpointing (Chen et al. 2016): a layer keeps its input alone, and is computed again in the backward
pass. Masks are functions of their place, so the second time is the first, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.checkpoint import checkpoint


def once(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def again(function: Callable[..., Any], *arguments: Any) -> Any:
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
