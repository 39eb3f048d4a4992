"""bitsandbytes' quantised linear layers with one forward pass, x times the de-quantised weight, in training as in
evaluation, on every processor.

bitsandbytes' own computes otherwise where nothing needs a gradient: int8 then quantises x too, and NF4 on a processor
with AVX512-BF16 repacks the weight in place, after which a training step gets no gradient through the layer.
"""

from __future__ import annotations

from typing import Any, Self

import bitsandbytes
import torch
from torch import nn
from torch.nn import functional


class Product(torch.autograd.Function):
    """x W' without a gradient for W, which is de-quantised again for the backward pass instead of being kept."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: Any) -> torch.Tensor:
        ctx.layer = layer
        return functional.linear(x, layer.weight_in(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (grad,) = grads
        return grad @ ctx.layer.weight_in(grad.dtype), None


def product(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """W x + bias in the dtype of autocast, else in that of x, as nn.Linear computes it."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    outputs = Product.apply(x.to(dtype), layer)
    return outputs if layer.bias is None else outputs + layer.bias.to(dtype)


def _shape_of(layer: Any) -> dict[str, Any]:
    """What a layer is made with that gets the weights of this one."""
    return {
        "input_features": layer.in_features,
        "output_features": layer.out_features,
        "bias": layer.bias is not None,
        "device": "meta",
    }


class FourBitLinear(bitsandbytes.nn.Linear4bit):
    """Four bits a value and a scale for each 64, the scales in eight bits (Dettmers et al. 2023, section 3)."""

    weight: Any

    @classmethod
    def of(cls, layer: Any) -> Self:
        """The same weights as in bitsandbytes' own layer, which is not to be used any more."""
        made = cls(
            **_shape_of(layer),
            compute_dtype=layer.compute_dtype,
            compress_statistics=layer.weight.compress_statistics,
            quant_type=layer.weight.quant_type,
        )
        made.weight, made.bias = layer.weight, layer.bias
        made.weight.module, made.quant_state = made, layer.weight.quant_state
        return made

    @property
    def form(self) -> str:
        """`nf4`, or what else a folder holds that is quantised already."""
        return str(self.weight.quant_type)

    @property
    def scales(self) -> list[torch.Tensor]:
        """What belongs to the packed weight."""
        state = self.weight.quant_state
        return [state.absmax, state.state2.absmax, state.offset.reshape(1)] if state.nested else [state.absmax]

    def weight_in(self, dtype: torch.dtype) -> torch.Tensor:
        """The de-quantised weight (out, in)."""
        weight = bitsandbytes.functional.dequantize_4bit(self.weight.data, self.weight.quant_state)
        return weight.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return product(self, x)


class EightBitLinear(bitsandbytes.nn.Linear8bitLt):
    """Eight bits a value and a scale for each output (Dettmers et al. 2022, section 2)."""

    form = "int8"
    weight: Any

    @classmethod
    def of(cls, layer: Any) -> Self:
        """See `FourBitLinear`."""
        made = cls(**_shape_of(layer), has_fp16_weights=False, threshold=layer.state.threshold)
        made.weight, made.bias = layer.weight, layer.bias
        made.weight.CB = None  # else a second name for the weight, which stays behind where it moves
        return made

    @property
    def scales(self) -> list[torch.Tensor]:
        """See `FourBitLinear`. (out,), float32."""
        return [self.weight.SCB]

    def weight_in(self, dtype: torch.dtype) -> torch.Tensor:
        """See `FourBitLinear`."""
        return (self.weight.data.float() * (self.weight.SCB[:, None] / 127)).to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return product(self, x)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """torch moves a module's tensors by this; the scales hang on the weight, where it does not see them."""
        scales = self.weight.SCB
        super()._apply(fn, recurse)
        self.weight.CB, self.weight.SCB = None, fn(scales)
        return self


KINDS: dict[type[nn.Module], Any] = {
    bitsandbytes.nn.Linear4bit: FourBitLinear,
    bitsandbytes.nn.Linear8bitLt: EightBitLinear,
}
"""What stands in for which layer of bitsandbytes."""
