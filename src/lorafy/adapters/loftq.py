"""LoftQ (Li et al. 2023, Algorithm 1 with T = 1): on a quantised base Q(W), A and B start as the r largest singular
values of W - Q(W), with their vectors, so that the first step begins nearer to the base as it was published.

More rounds would quantise W - B A in place of W: then the adapter fits that base alone. With one it is LoRA's on the
ordinary quantised base. peft's `replace_lora_weights_loftq` computes on CUDA or XPU alone, and leaves the scale out:
with alpha = 2 r, twice of what was lost is put back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer

from ..adapter_contract import Attached, Attachment
from ..kernels.packed import is_packed
from ..models.parts import PEFT_PREFIX
from ..types import ModelError, Problem
from .lora import Lora

ROUNDS = 16
"""Of torch.svd_lowrank: what is lost is nearly noise, whose singular values fall slowly. At 1024 x 1024 and at
3072 x 1024, r 16 and 64, they find 98 to 99 % of the energy that the whole decomposition finds, in a tenth to a third
of its time."""


LARGEST_LOSS = 0.5
"""Of a weight's length: nf4 loses 9 % of it where values are drawn normally."""


class LoftQ(Lora):
    """See `Lora`. Layers that are not quantised start as LoRA's do."""

    title = "LoftQ"
    needs_packed = True

    def claims(self, folder: Path) -> bool:
        """None: what it writes is LoRA's."""
        return False

    @torch.no_grad()
    def attach(self, model: Any, request: Attachment) -> Attached:
        """Wraps the target layers. Raises ModelError where there is nothing to start from."""
        if request.original is None:
            message = "LoftQ starts from what quantising the base loses, and here nothing is quantised"
            raise ModelError(Problem("adapter.method", message, "model.quantise=nf4, or adapter.method=lora"))
        attached = super().attach(model, request)
        before = left = 0.0
        for name, layer in attached.model.named_modules():
            base: Any = layer.get_base_layer() if isinstance(layer, LoraLayer) else None
            if base is None or not is_packed(base):
                continue
            whole = request.original(name.removeprefix(PEFT_PREFIX))
            lost = whole - base.weight_in(torch.float32)
            if lost.norm() > LARGEST_LOSS * whole.norm():
                message = f"its safetensors have another weight for {name.removeprefix(PEFT_PREFIX)} than was quantised"
                raise ModelError(Problem("model.path", message, "use adapter.method=lora"))
            U, S, V = torch.svd_lowrank(lost, q=layer.r["default"], niter=ROUNDS)
            half = (S / layer.scaling["default"]).sqrt()
            layer.lora_A["default"].weight.copy_((V * half).T)
            layer.lora_B["default"].weight.copy_(U * half)
            energy = lost.square().sum().item()
            before, left = before + energy, left + energy - S.square().sum().item()
        if not before:
            message = "none of the layers that get LoRA is quantised, so LoftQ has nothing to start from"
            raise ModelError(Problem("adapter.target_modules", message, "name other layers, or adapter.method=lora"))
        note = (
            f"LoftQ's start puts {1 - left / before:.1%} of what quantising lost back (of its squares, over all layers)"
        )
        return Attached(attached.model, attached.targets, [*attached.notes, note])


METHOD = LoftQ()
