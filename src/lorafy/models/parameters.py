"""What of a model is trained and what is frozen: counted, and held in the dtype that the products want."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from ..kernels.memory import hold_in
from ..kernels.packed import packed_layers
from .quantise import HELD


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of parameters. `total` counts the model as it is trained: base, adapter and head."""

    trainable: int
    total: int

    @property
    def share(self) -> float:
        """The trainable share of all parameters, 0 to 1."""
        return self.trainable / self.total


def hold_frozen_weights(model: Any, dtype: torch.dtype) -> None:
    """Casts frozen linear weights to the products' dtype once; autocast would do it on every forward.

    Embeddings, norms and everything trainable stay float32, as under autocast. An output layer that is the table of
    embeddings gets a copy of its own.
    """
    if dtype == torch.float32:
        return
    tables = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    for module in model.modules():
        if isinstance(module, torch.nn.Linear | Conv1D):
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) in tables and not parameter.requires_grad:
                    setattr(module, name, torch.nn.Parameter(parameter.to(dtype), requires_grad=False))
                elif not parameter.requires_grad and parameter.dtype in HELD:
                    hold_in(parameter, dtype)


def count_parameters(model: Any) -> ParameterCount:
    """Counts parameters, without peft's frozen copy of the head, which its trained copy replaces. A quantised weight
    counts as what it stands for."""
    packed = {f"{name}.weight": layer for name, layer in packed_layers(model).items()}
    trainable = total = 0
    for name, parameter in model.named_parameters():
        if ".original_module." in name:
            continue
        layer = packed.get(name)
        total += parameter.numel() if layer is None else layer.in_features * layer.out_features
        trainable += parameter.numel() if parameter.requires_grad else 0
    return ParameterCount(trainable, total)
