"""peft's LoRA layer with a forward pass that can be one fused operation: the fast path of models without a family."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear as PeftLinear
from torch import nn
from transformers.pytorch_utils import Conv1D

from . import compiled, gpu
from .nouns import Linear


class FusedLinear(PeftLinear):
    """As peft's, for Linear and GPT-2's Conv1D, until `fused` is set: then W x + B A dropout(x) is one operation.

    A and B are read in float32, frozen weights in the dtype they are held in. Masks are drawn from torch's generator.
    `start`: A and B, on the CPU, as they were taken out of the frozen weight, where they were.
    """

    def __init__(self, base_layer: nn.Module, adapter_name: str, **kwargs: Any):
        super().__init__(base_layer, adapter_name, is_target_conv_1d_layer=isinstance(base_layer, Conv1D), **kwargs)
        self.fused: Linear | None = None
        self.start: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.fused is None or self.merged or self.disable_adapters:
            return super().forward(x, *args, **kwargs)
        rows = x.reshape(-1, x.shape[-1]).to(self.fused.weight.dtype)
        seeds = None
        if self.training and any(part.dropout.p > 0 for part in self.fused.parts):
            seeds = torch.randint(-(2**31), 2**31, (len(rows),), dtype=torch.int32, device=x.device)
        ops = gpu if x.is_cuda else compiled
        return ops.lora_linear(rows, self.fused, seeds).view(*x.shape[:-1], -1)


LAYERS: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: FusedLinear, Conv1D: FusedLinear}
"""What stands in for which base layer."""
