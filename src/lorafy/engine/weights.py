"""Reads layers of a transformers model, with peft's adapters on them, as what the operations work on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

import torch
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper, TrainableTokensWrapper
from torch import nn
from transformers.pytorch_utils import Conv1D

from ..kernels.memory import join
from ..kernels.nouns import NO_DROPOUT, SITES, Dropout, Linear, LoraPart, Norm, PackedWeight, TokenRows
from ..kernels.packed import is_packed
from ..types import PlacedPicture

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}


class Unsupported(Exception):
    """Why a model cannot take the fast path."""


class Projections(TypedDict):
    """Three fields of a layer: queries, keys and values side by side in `qkv`, or apart in `q` and `kv`."""

    qkv: Linear | None
    q: Linear | None
    kv: Linear | None


@dataclass
class Reader:
    """Turns modules into nouns, numbers the dropouts, and notes which trained parameters the fast path uses.

    patches: the task's, where it shows pictures. keeps_features: of pictures, where the tower is frozen.
    """

    dtype: torch.dtype
    patches: Callable[[PlacedPicture], torch.Tensor] | None = None
    keeps_features: bool = True
    used: list[nn.Parameter] = field(default_factory=list)
    _sites: int = 0

    def linear(self, *modules: Any) -> Linear:
        """Modules that read the same input, as one. Their frozen weights become views of one tensor."""
        bases: list[Any] = [base_of(module) for module in modules]
        for base in bases:
            if not isinstance(base, nn.Linear | Conv1D):
                raise Unsupported(f"a linear layer is a {type(base).__name__}")
            if any(parameter.requires_grad for parameter in base.parameters()):
                raise Unsupported("base weights are trained")
        in_first = isinstance(bases[0], Conv1D)
        weight: torch.Tensor | PackedWeight
        if is_packed(bases[0]):
            weight, widths = self._packed(bases), [base.out_features for base in bases]
        else:
            weight = self._joined(bases, in_first)
            widths = [base.weight.shape[1 if in_first else 0] for base in bases]
        biases = [base.bias for base in bases]
        bias = None
        if any(one is not None for one in biases):
            pairs = zip(biases, widths, strict=True)
            zeros = bases[0].weight.new_zeros
            bias = torch.cat(
                [zeros(n, dtype=torch.float32) if one is None else one.detach().float() for one, n in pairs]
            )
        starts = [sum(widths[:index]) for index in range(len(widths))]
        adapters = [
            self._part(module, start)
            for module, start in zip(modules, starts, strict=True)
            if isinstance(module, LoraLayer)
        ]
        return Linear(weight, bias, adapters, in_first)

    def projections(self, q: Any, k: Any, v: Any, *, apart: bool) -> Projections:
        """Of one layer's attention. apart: in the last layer, which asks for fewer queries than keys."""
        if apart:
            return Projections(qkv=None, q=self.linear(q), kv=self.linear(k, v))
        return Projections(qkv=self.linear(q, k, v), q=None, kv=None)

    def columns(self, whole: Linear, start: int, end: int) -> Linear:
        """Some columns of a layer's output, as GPT-2's queries are of `c_attn`, with the same dropout masks."""
        weight: torch.Tensor | PackedWeight
        if isinstance(whole.weight, PackedWeight):
            weight = whole.weight.part(start, end)
        else:
            weight = (whole.weight[:, start:end] if whole.in_first else whole.weight[start:end]).contiguous()
        bias = None if whole.bias is None else whole.bias[start:end].contiguous()
        parts = [replace(part, rows=(start, end)) for part in whole.parts]
        return Linear(weight, bias, parts, whole.in_first)

    def _packed(self, bases: Sequence[Any]) -> PackedWeight:
        if not all(map(is_packed, bases)):
            raise Unsupported("of layers that read the same input only some are quantised")
        return PackedWeight(bases, self.dtype, (0, sum(base.out_features for base in bases)))

    def _joined(self, bases: Sequence[Any], in_first: bool) -> torch.Tensor:
        weights = [base.weight.detach() for base in bases]
        if any(weight.dtype != self.dtype for weight in weights):
            raise Unsupported(f"a frozen weight is not {str(self.dtype).removeprefix('torch.')}")
        if len(weights) == 1:
            return weights[0]
        return join([base.weight for base in bases], axis=1 if in_first else 0)

    def _part(self, module: Any, start: int) -> LoraPart:
        (adapter,) = module.active_adapters
        if module.use_dora.get(adapter):
            raise Unsupported("DoRA divides by the length of each row of W + BA, which no operation of it computes")
        if module.merged or module.lora_variant or module.lora_bias.get(adapter):
            raise Unsupported("an adapter is merged, or of a variant of LoRA")
        lora_A, lora_B = module.lora_A[adapter].weight, module.lora_B[adapter].weight
        self.used += [lora_A, lora_B]
        return LoraPart(lora_A, lora_B, module.scaling[adapter], self.dropout(module.lora_dropout[adapter]), start)

    def dropout(self, module: Any) -> Dropout:
        """Each call is another place of the model."""
        p = module if isinstance(module, float | int) else 0.0 if isinstance(module, nn.Identity) else module.p
        if p == 0:
            return NO_DROPOUT
        self._sites += 1
        return Dropout(float(p), self._sites * SITES)

    def norm(self, module: Any) -> Norm:
        if module.weight.requires_grad:
            raise Unsupported("norms are trained")
        weight = module.weight.detach().float()
        if not isinstance(module, nn.LayerNorm):  # the families' RMS norms, each of a class of its own
            return Norm(weight, None, module.variance_epsilon, rms=True)
        return Norm(weight, None if module.bias is None else module.bias.detach().float(), module.eps)

    def token_rows(self, module: Any) -> TokenRows | None:
        """The rows of the embeddings, or of the output layer, that are trained; None where there are none."""
        if not isinstance(module, TrainableTokensWrapper):
            return None
        (adapter,) = module.active_adapters
        layer = module.token_adapter
        values, weight = layer.trainable_tokens_delta[adapter], base_of(module).weight.detach()
        tokens = torch.tensor(layer.token_indices[adapter], device=weight.device)
        self.used.append(values)
        return TokenRows(tokens, values, weight[tokens].float())

    def head(self, module: nn.Module, inner: str = "") -> nn.Linear:
        """A head's layer, trained whole in float32; `inner`: its name inside `module`."""
        if isinstance(module, ModulesToSaveWrapper):
            (adapter,) = module.active_adapters
            module = module.modules_to_save[adapter]
        module = module.get_submodule(inner)
        if not isinstance(module, nn.Linear):
            raise Unsupported(f"the head's layer is a {type(module).__name__}")
        self.used += [parameter for parameter in module.parameters() if parameter.requires_grad]
        return module


def base_of(module: Any) -> Any:
    """The layer below peft's adapter, or the module itself where it has none."""
    if isinstance(module, TrainableTokensWrapper):
        return module.token_adapter.base_layer
    return module.base_layer if isinstance(module, LoraLayer) else module


def activation_name(name: str) -> str:
    if name not in ACTIVATIONS:
        raise Unsupported(f"the activation {name} is not one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
