"""The same LoRA by hand (lorafy.scratch), by peft, and by the fast path's definition: modules with equal numbers."""

from __future__ import annotations

import copy
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from lorafy.kernels.build import COMPILERS
from lorafy.kernels.nouns import NO_DROPOUT, Linear, LoraPart
from lorafy.scratch import LinearWithLoRA, equal_alpha, lora_layers

needs_compiler = pytest.mark.skipif(
    sys.platform != "linux" or not any(map(shutil.which, COMPILERS)), reason="needs Linux and a C++ compiler"
)
Operation = Callable[[torch.Tensor, Linear, None], torch.Tensor]


def draw(*shape: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    """Normal numbers that bfloat16 holds exactly, as float64."""
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).bfloat16().double()


def fill_lora(model: nn.Module, seed: int = 5) -> None:
    """A and B as if trained: with B = 0 half of what is compared would be zero."""
    with torch.no_grad():
        for index, (_, layer) in enumerate(lora_layers(model)):
            rank, width = layer.lora.lora_A.shape
            layer.lora.lora_A.copy_(draw(rank, width, seed=seed + 2 * index, scale=width**-0.5))
            layer.lora.lora_B.copy_(draw(len(layer.lora.lora_B), rank, seed=seed + 2 * index + 1, scale=rank**-0.5))


def peft_twin(base: nn.Module, by_hand: nn.Module) -> Any:
    """peft's LoRA on a copy of `base`, on the same layers as `by_hand`, with its A and B."""
    layers = dict(lora_layers(by_hand))
    first = next(iter(layers.values())).lora
    alpha = equal_alpha(first.alpha, first.rank, first.convention, "paper")
    assert alpha == int(alpha), "peft's type for it is int"
    config = LoraConfig(r=first.rank, lora_alpha=int(alpha), lora_dropout=0.0, target_modules=sorted(layers))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's, about models without a config of transformers
        twin = get_peft_model(copy.deepcopy(base), config, autocast_adapter_dtype=False)
    theirs = dict(twin.named_parameters())
    with torch.no_grad():
        for name, layer in layers.items():
            theirs[peft_name(name, "A")].copy_(layer.lora.lora_A)
            theirs[peft_name(name, "B")].copy_(layer.lora.lora_B)
    return twin


def peft_name(layer: str, matrix: str) -> str:
    return f"base_model.model.{layer}.lora_{matrix}.default.weight"


def lora_parameters(by_hand: nn.Module) -> dict[tuple[str, str], nn.Parameter]:
    """By layer and matrix."""
    return {
        (name, matrix): parameter
        for name, layer in lora_layers(by_hand)
        for matrix, parameter in (("A", layer.lora.lora_A), ("B", layer.lora.lora_B))
    }


class ByDefinition(nn.Module):
    """The layer as an operation of the fast path: of reference.py, or of compiled.py."""

    def __init__(self, layer: LinearWithLoRA, operation: Operation, dtype: torch.dtype = torch.float64):
        super().__init__()
        single = torch.float32 if dtype == torch.bfloat16 else dtype
        self.operation = operation
        self.weight = layer.linear.weight.detach().to(dtype)
        self.bias = None if layer.linear.bias is None else layer.linear.bias.detach().to(single)
        self.lora_A = nn.Parameter(layer.lora.lora_A.detach().to(single).clone())
        self.lora_B = nn.Parameter(layer.lora.lora_B.detach().to(single).clone())
        self.scaling = layer.lora.scaling

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        part = LoraPart(self.lora_A, self.lora_B, self.scaling, NO_DROPOUT)
        return self.operation(x, Linear(self.weight, self.bias, [part]), None)


def run(module: nn.Module, trained: Sequence[nn.Parameter], x: torch.Tensor, grad: torch.Tensor) -> list[torch.Tensor]:
    """The output, and the gradients of x and of what is trained."""
    x = x.clone().requires_grad_()
    y = module(x)
    return [y.detach(), *torch.autograd.grad(y, [x, *trained], grad.to(y.dtype))]


def descend(trained: Sequence[nn.Parameter], loss: Callable[[int], torch.Tensor], steps: int = 10) -> list[float]:
    """So many steps of plain SGD, and their losses."""
    optimizer = torch.optim.SGD(trained, lr=0.05)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        value = loss(step)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


def apart(found: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest difference, in units of the largest value."""
    assert found.shape == exact.shape
    difference = (found.double() - exact.double()).abs().max()
    return 0.0 if difference == 0 else (difference / exact.double().abs().max()).item()


def assert_all_close(found: Any, exact: Any, tolerance: float) -> None:
    """Tensors in two lists, or in two mappings with the same keys."""
    pairs = found.items() if isinstance(found, Mapping) else enumerate(found)
    assert len(found) == len(exact)
    for key, tensor in pairs:
        assert apart(tensor.detach(), exact[key].detach()) <= tolerance, key
