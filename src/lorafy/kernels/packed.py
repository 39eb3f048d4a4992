"""Which linear layers keep their weight quantised: bytes that mean nothing without their scales.

Their classes are in quantised.py, which imports bitsandbytes; nothing here does.
"""

from __future__ import annotations

from typing import Any

from torch import nn


def packed_layers(model: Any) -> dict[str, Any]:
    """The layers whose weight is packed, by name; of a model that peft wrapped too."""
    return {name: module for name, module in model.named_modules() if _holds_packed(module)}


def is_packed(model: Any) -> bool:
    """Whether any linear layer of a model, or this module itself, is quantised."""
    return any(_holds_packed(module) for module in model.modules())


def _holds_packed(module: Any) -> bool:
    return isinstance(module, nn.Linear) and not module.weight.is_floating_point()
