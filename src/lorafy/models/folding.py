"""peft's merging of a layer for as long as it computes: over weights that other models share."""

from __future__ import annotations

from typing import Any

from peft.tuners.lora import LoraLayer
from torch import nn


def fold_layers(model: Any) -> None:
    """From here on each LoRA layer of `model` computes as if it were merged, bit for bit, and its weights stay as they
    are. Raises ValueError for an adapter that holds NaN or infinity."""
    for layer in [module for module in model.modules() if isinstance(module, LoraLayer)]:
        _Folding(layer)


class _Folding:
    """Merges a layer before its forward pass, into Parameters that are let go behind it: in memory is one merged layer
    at a time. For 1,000 tokens at once that is less work than B A x beside W x."""

    def __init__(self, layer: Any):
        self._held: dict[str, nn.Parameter] = {}
        self._fold(layer, ())
        self._unfold(layer, (), None)
        layer.register_forward_pre_hook(self._fold)
        layer.register_forward_hook(self._unfold, always_call=True)

    def _fold(self, layer: Any, _: Any) -> None:
        base = layer.get_base_layer()
        self._held = dict(base.named_parameters(recurse=False))
        for name, parameter in self._held.items():
            setattr(base, name, nn.Parameter(parameter.detach(), requires_grad=False))
        layer.merge(safe_merge=True)  # which gives the new Parameter other memory

    def _unfold(self, layer: Any, _: Any, __: Any) -> None:
        for name, parameter in self._held.items():
            setattr(layer.get_base_layer(), name, parameter)
        self._held = {}
        layer.merged_adapters.clear()
