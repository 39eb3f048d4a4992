"""One linear layer: by hand = peft = the definition of the fast path, the compiled operation as near as can be."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from three_ways import (
    ByDefinition,
    apart,
    assert_all_close,
    descend,
    draw,
    fill_lora,
    needs_compiler,
    peft_name,
    peft_twin,
    run,
)
from torch import nn

from lorafy.kernels import compiled, reference
from lorafy.scratch import LinearWithLoRA, equal_alpha
from tolerances import BFLOAT16_STORED, BFLOAT16_TIMES_TORCH, FLOAT32_ROUNDING, FLOAT64_ROUNDING

LAYERS = {
    "square": {"num_in": 32, "num_out": 32, "rank": 4, "alpha": 8},
    "odd": {"num_in": 37, "num_out": 19, "rank": 5, "alpha": 7},
    "no bias": {"num_in": 24, "num_out": 48, "rank": 8, "alpha": 16, "bias": False},
    "rank 1": {"num_in": 16, "num_out": 8, "rank": 1, "alpha": 3},
    "plain alpha": {"num_in": 32, "num_out": 40, "rank": 16, "alpha": 0.5, "scaling": "plain"},
}

every_layer = pytest.mark.parametrize("settings", LAYERS.values(), ids=LAYERS)


def layer_of(
    num_in: int, num_out: int, rank: int, alpha: float, scaling: Any = "paper", bias: bool = True
) -> LinearWithLoRA:
    linear = nn.Linear(num_in, num_out, bias=bias, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(draw(num_out, num_in, seed=1, scale=num_in**-0.5))
        if bias:
            linear.bias.copy_(draw(num_out, seed=2))
    linear.requires_grad_(False)
    layer = LinearWithLoRA(linear, rank, alpha, scaling)
    fill_lora(layer)
    return layer


def peft_layer(layer: LinearWithLoRA) -> tuple[Any, list[nn.Parameter]]:
    twin = peft_twin(nn.Sequential(OrderedDict(only=layer.linear)), nn.Sequential(OrderedDict(only=layer)))
    parameters = dict(twin.named_parameters())
    return twin, [parameters[peft_name("only", matrix)] for matrix in "AB"]


@every_layer
def test_forward_and_gradients(settings: dict[str, Any]) -> None:
    layer = layer_of(**settings)
    x, grad = draw(23, settings["num_in"], seed=3), draw(23, settings["num_out"], seed=4)
    by_hand = run(layer, [layer.lora.lora_A, layer.lora.lora_B], x, grad)
    definition = ByDefinition(layer, reference.lora_linear)
    assert_all_close(run(definition, [definition.lora_A, definition.lora_B], x, grad), by_hand, FLOAT64_ROUNDING)
    assert_all_close(run(*peft_layer(layer), x, grad), by_hand, FLOAT64_ROUNDING)


@every_layer
def test_ten_steps_of_sgd(settings: dict[str, Any]) -> None:
    layer = layer_of(**settings)
    definition = ByDefinition(layer, reference.lora_linear)
    twin, theirs = peft_layer(layer)
    ways = [
        (layer, [layer.lora.lora_A, layer.lora.lora_B]),
        (definition, [definition.lora_A, definition.lora_B]),
        (twin, theirs),
    ]
    start = [parameter.detach().clone() for parameter in ways[0][1]]
    losses = []
    for module, trained in ways:

        def loss(step: int, module: nn.Module = module) -> torch.Tensor:
            y = module(draw(9, settings["num_in"], seed=50 + step))
            return (y - draw(9, settings["num_out"], seed=80 + step)).square().mean()

        losses.append(torch.tensor(descend(trained, loss), dtype=torch.float64))
    assert all(apart(was, now.detach()) > 1e-3 for was, now in zip(start, ways[0][1], strict=True))
    for (_, trained), values in zip(ways[1:], losses[1:], strict=True):
        assert apart(values, losses[0]) <= FLOAT64_ROUNDING
        assert_all_close(trained, ways[0][1], FLOAT64_ROUNDING)


@every_layer
def test_merged_weights(settings: dict[str, Any]) -> None:
    layer = layer_of(**settings)
    twin, _ = peft_layer(layer)
    theirs = twin.merge_and_unload().only
    assert apart(theirs.weight, layer.merge().weight) <= FLOAT64_ROUNDING
    x = draw(5, settings["num_in"], seed=3)
    assert apart(layer.merge()(x), layer(x)) <= FLOAT64_ROUNDING


@pytest.mark.parametrize("from_, to", [("paper", "plain"), ("plain", "paper")])
def test_alpha_in_the_other_convention_is_the_same_layer(from_: Any, to: Any) -> None:
    here = layer_of(12, 20, rank=8, alpha=16, scaling=from_)
    there = layer_of(12, 20, rank=8, alpha=equal_alpha(16, 8, from_, to), scaling=to)
    x = draw(5, 12, seed=3)
    assert apart(there(x), here(x)) <= FLOAT64_ROUNDING
    assert equal_alpha(there.lora.alpha, 8, to, from_) == 16
    unconverted = layer_of(12, 20, rank=8, alpha=16, scaling=to)
    assert max(here.lora.scaling, unconverted.lora.scaling) == 8 * min(here.lora.scaling, unconverted.lora.scaling)


@needs_compiler
@every_layer
def test_the_compiled_operation_in_float32(settings: dict[str, Any]) -> None:
    layer = layer_of(**settings)
    x, grad = draw(23, settings["num_in"], seed=3), draw(23, settings["num_out"], seed=4)
    exact = run(layer, [layer.lora.lora_A, layer.lora.lora_B], x, grad)
    fast = ByDefinition(layer, compiled.lora_linear, torch.float32)
    assert_all_close(run(fast, [fast.lora_A, fast.lora_B], x.float(), grad), exact, FLOAT32_ROUNDING)


@needs_compiler
@every_layer
def test_the_compiled_operation_in_bfloat16(settings: dict[str, Any]) -> None:
    layer = layer_of(**settings)
    x, grad = draw(23, settings["num_in"], seed=3), draw(23, settings["num_out"], seed=4)
    exact = run(layer, [layer.lora.lora_A, layer.lora.lora_B], x, grad)
    fast = ByDefinition(layer, compiled.lora_linear, torch.bfloat16)
    found = run(fast, [fast.lora_A, fast.lora_B], x.bfloat16(), grad)
    plain_layer = layer_of(**settings).bfloat16()
    plain = run(plain_layer, [plain_layer.lora.lora_A, plain_layer.lora.lora_B], x.bfloat16(), grad)
    for ours, theirs, expected in zip(found, plain, exact, strict=True):
        error, torchs = (((tensor.double() - expected).norm() / expected.norm()).item() for tensor in (ours, theirs))
        assert error <= max(BFLOAT16_TIMES_TORCH * torchs, BFLOAT16_STORED)
