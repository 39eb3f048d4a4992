"""LoRA by hand: what it adds, what it replaces, what it freezes, and that merging is a pure function."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import lorafy.scratch as scratch
from lorafy.scratch import (
    LinearWithLoRA,
    LoRALayer,
    SimpleGPTForClassification,
    count_parameters,
    equal_alpha,
    freeze_all_but_lora,
    load_lora_state_dict,
    lora_layers,
    lora_state_dict,
    merge_lora,
    replace_linear_with_lora,
    unmerge_lora,
)
from lorafy.scratch.lora import Scaling
from tolerances import FLOAT32_ROUNDING, FLOAT64_ROUNDING

WIDTH, HIDDEN, LAYERS = 16, 24, 2
IDS = torch.randint(0, 30, (3, 8), generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([8, 3, 5])


def small_gpt(**settings) -> SimpleGPTForClassification:
    sizes = {"width": WIDTH, "num_heads": 2, "num_layers": LAYERS, "hidden": HIDDEN}
    return SimpleGPTForClassification(30, 10, **sizes | settings).eval()


def trained_gpt(dtype: torch.dtype = torch.float64) -> SimpleGPTForClassification:
    model = small_gpt().to(dtype)
    replace_linear_with_lora(model, rank=4, alpha=8)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, layer in lora_layers(model):
            layer.lora.lora_B.normal_(generator=generator)
    return model


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_every_public_name_is_there() -> None:
    assert all(hasattr(scratch, name) for name in scratch.__all__)
    assert sorted(scratch.__all__) == sorted(set(scratch.__all__))


@pytest.mark.parametrize("scaling", ["paper", "plain"])
def test_the_start_is_the_base_bit_for_bit(scaling: Scaling) -> None:
    model, base = small_gpt(), small_gpt()
    replace_linear_with_lora(model, rank=4, alpha=8, scaling=scaling)
    assert all(layer.lora.lora_A.abs().min() > 0 for _, layer in lora_layers(model))
    assert all(layer.lora.lora_B.abs().max() == 0 for _, layer in lora_layers(model))
    assert torch.equal(model(IDS, LENGTHS), base(IDS, LENGTHS))


def test_at_the_start_b_has_a_gradient_and_a_has_none_yet() -> None:
    """Were A zeros too, neither would ever have one."""
    layer = LoRALayer(6, 5, rank=2, alpha=4)
    layer(torch.ones(3, 6)).sum().backward()
    assert layer.lora_B.grad is not None and layer.lora_B.grad.abs().max() > 0
    assert layer.lora_A.grad is not None and layer.lora_A.grad.abs().max() == 0


def test_the_formula_number_by_number() -> None:
    layer = LoRALayer(3, 2, rank=1, alpha=4, scaling="plain")
    with torch.no_grad():
        layer.lora_A.copy_(torch.tensor([[1.0, 2.0, 3.0]]))
        layer.lora_B.copy_(torch.tensor([[10.0], [-1.0]]))
    # A x = 1 + 4 + 9 = 14; B A x = (140, -14); times 4
    assert layer(torch.tensor([[1.0, 2.0, 3.0]])).tolist() == [[560.0, -56.0]]
    assert layer.update().tolist() == [[40.0, 80.0, 120.0], [-4.0, -8.0, -12.0]]


def test_conventions_of_alpha() -> None:
    assert LoRALayer(4, 4, rank=8, alpha=16).scaling == 2
    assert LoRALayer(4, 4, rank=8, alpha=16, scaling="plain").scaling == 16
    assert equal_alpha(16, 8, "paper", "plain") == 2
    assert equal_alpha(2, 8, "plain", "paper") == 16
    assert equal_alpha(5, 8, "paper", "paper") == 5
    with pytest.raises(ValueError, match="not 'paper'"):
        LoRALayer(4, 4, rank=2, alpha=4, scaling="rslora")  # type: ignore[arg-type]  # what is refused
    with pytest.raises(ValueError, match="rank is 0"):
        LoRALayer(4, 4, rank=0, alpha=4)


def test_exact_counts() -> None:
    model, rank = small_gpt(), 4
    _, base_size = count_parameters(model)
    report = replace_linear_with_lora(model, rank=rank, alpha=8)
    # Four square layers of attention, up and down in each block, and the head with its two classes.
    expected = LAYERS * rank * (4 * (WIDTH + WIDTH) + 2 * (WIDTH + HIDDEN)) + rank * (WIDTH + 2)
    assert (report.num_layers, report.num_parameters) == (6 * LAYERS + 1, expected)
    assert len(report.names) == len(set(report.names)) == report.num_layers
    assert {"blocks.1.attention.value", "blocks.0.feed_forward.down", "head"} <= set(report.names)
    # Replacing freezes nothing: "only LoRA trains" is not yet true.
    assert count_parameters(model) == (base_size + expected, base_size + expected)
    assert str(report) == f"13 linear layers got LoRA: {expected:,} parameters added"


def test_the_size_of_the_course() -> None:
    model = SimpleGPTForClassification(300, 100)
    report = replace_linear_with_lora(model, skip=("head",))
    assert report.num_layers == 24
    assert report.num_parameters == 4 * 16 * (4 * (256 + 256) + 2 * (256 + 512))


def test_nested_modules_are_reached_and_nothing_is_wrapped_twice() -> None:
    inner = nn.ModuleDict({"deep": nn.Sequential(nn.Linear(4, 4), nn.ModuleList([nn.Linear(4, 4)]))})
    model = nn.Sequential(inner, nn.Linear(4, 2))
    assert replace_linear_with_lora(model, 2, 4).names == ("0.deep.0", "0.deep.1.0", "1")
    with pytest.raises(ValueError, match="no linear layer without LoRA"):
        replace_linear_with_lora(model, 2, 4)
    assert not any(isinstance(layer.linear, LinearWithLoRA) for _, layer in lora_layers(model))
    assert len(list(lora_layers(model))) == 3
    # A layer that comes later is found, those that have LoRA are left alone.
    model.append(nn.Linear(2, 2))
    assert replace_linear_with_lora(model, 2, 4).names == ("2",)


def test_a_layer_in_two_places_stays_one_layer() -> None:
    shared = nn.Linear(4, 4)
    model: Any = nn.Sequential(shared, nn.Sequential(shared))
    assert replace_linear_with_lora(model, 2, 4).num_layers == 1
    assert model[0] is model[1][0]
    merged: Any = merge_lora(model)
    assert merged[0] is merged[1][0]


def test_linear_layers_whose_forward_is_not_used_are_left_alone() -> None:
    """nn.MultiheadAttention reads the weight of its out_proj itself."""
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2, batch_first=True), "linear": nn.Linear(8, 8)})
    assert replace_linear_with_lora(model, 2, 4).names == ("linear",)
    x = torch.ones(1, 3, 8)
    assert model["attention"](x, x, x)[0].shape == (1, 3, 8)


def test_what_is_skipped() -> None:
    report = replace_linear_with_lora(small_gpt(), 2, 4, skip=("head", "blocks.0", "feed_forward"))
    assert report.names == tuple(f"blocks.1.attention.{name}" for name in ("query", "key", "value", "output"))
    with pytest.raises(ValueError, match="is called haed"):
        replace_linear_with_lora(small_gpt(), 2, 4, skip=("haed",))
    with pytest.raises(ValueError, match="LinearWithLoRA"):
        replace_linear_with_lora(nn.Linear(2, 2), 2, 4)


def test_the_same_seed_draws_the_same_a_whatever_came_before() -> None:
    models = []
    for before, seed in ((1, 5), (2, 5), (1, 6)):
        torch.manual_seed(before)
        model = small_gpt()
        replace_linear_with_lora(model, 4, 8, seed=seed)
        models.append(lora_state_dict(model))
    assert same(models[0], models[1])
    assert not same(models[0], models[2])


def test_freezing_says_what_is_trained_and_does_it() -> None:
    model = small_gpt()
    added = replace_linear_with_lora(model, 4, 8, skip=("head",)).num_parameters
    report = freeze_all_but_lora(model)
    assert (report.num_lora, report.num_also) == (added, 0)
    assert count_parameters(model) == (report.num_trainable, report.num_total)
    assert {name.rpartition(".")[2] for name, p in model.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}
    # The head is random here: frozen, it would stay so.
    report = freeze_all_but_lora(model, also=("head",))
    assert (report.num_lora, report.num_also) == (added, 2 * WIDTH + 2)
    assert count_parameters(model) == (report.num_trainable, report.num_total)
    assert model.head.weight.requires_grad and model.head.bias.requires_grad
    assert not any(p.requires_grad for p in [*model.token_embedding.parameters(), *model.norm.parameters()])
    assert f"{added:,} of LoRA, 34 besides" in str(report)


def test_freezing_refuses_what_would_train_nothing() -> None:
    with pytest.raises(ValueError, match="no LoRA"):
        freeze_all_but_lora(small_gpt())
    model = trained_gpt()
    with pytest.raises(ValueError, match="is called classifier"):
        freeze_all_but_lora(model, also=("classifier",))
    assert all(p.requires_grad for p in model.parameters()), "a refused call leaves everything as it was"


def test_merging_is_pure_and_computes_the_same() -> None:
    model = trained_gpt()
    before = copy.deepcopy(model.state_dict())
    merged = merge_lora(model)
    assert same(model.state_dict(), before)
    assert not list(lora_layers(merged))
    assert merged.state_dict().keys() == small_gpt().state_dict().keys()
    logits = model(IDS, LENGTHS)
    torch.testing.assert_close(merged(IDS, LENGTHS), logits, rtol=FLOAT64_ROUNDING, atol=FLOAT64_ROUNDING)
    assert (logits - small_gpt().double()(IDS, LENGTHS)).abs().max() > 0.01
    # Neither mode changes a weight.
    merged.train()
    merged.eval()
    torch.testing.assert_close(merged(IDS, LENGTHS), logits, rtol=FLOAT64_ROUNDING, atol=FLOAT64_ROUNDING)
    with pytest.raises(ValueError, match="no LoRA to merge"):
        merge_lora(merged)


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float64, FLOAT64_ROUNDING), (torch.float32, FLOAT32_ROUNDING)], ids=str
)
def test_unmerging_is_the_way_back_to_rounding(dtype: torch.dtype, tolerance: float) -> None:
    model = trained_gpt(dtype)
    merged = merge_lora(model)
    there = copy.deepcopy(merged.state_dict())
    back = unmerge_lora(merged, model)
    assert same(merged.state_dict(), there)
    assert back.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], tensor, rtol=tolerance, atol=tolerance)


def test_a_lone_layer_merges_and_unmerges() -> None:
    layer = LinearWithLoRA(nn.Linear(5, 4, dtype=torch.float64), 2, 4)
    nn.init.normal_(layer.lora.lora_B, generator=torch.Generator().manual_seed(0))
    merged = merge_lora(layer)
    assert type(merged) is nn.Linear
    assert merged.weight is not layer.linear.weight
    expected = layer.linear.weight + 2 * layer.lora.lora_B @ layer.lora.lora_A
    torch.testing.assert_close(merged.weight, expected, rtol=FLOAT64_ROUNDING, atol=FLOAT64_ROUNDING)
    back = layer.unmerge(merged)
    torch.testing.assert_close(back.weight, layer.linear.weight, rtol=FLOAT64_ROUNDING, atol=FLOAT64_ROUNDING)


def test_what_is_saved_brings_the_model_back() -> None:
    model = trained_gpt()
    state = lora_state_dict(model)
    assert len(state) == 2 * 13
    assert all(".lora.lora_" in name for name in state)
    other = small_gpt().double()
    replace_linear_with_lora(other, rank=4, alpha=8, seed=9)
    load_lora_state_dict(other, state)
    assert torch.equal(other(IDS, LENGTHS), model(IDS, LENGTHS))
    kept = {name: tensor.clone() for name, tensor in state.items()}
    with torch.no_grad():
        next(lora_layers(model))[1].lora.lora_B.zero_()
    assert same(state, kept), "copies, not views"
    with pytest.raises(ValueError, match="missing"):
        load_lora_state_dict(other, {})
    with pytest.raises(ValueError, match="not in the model"):
        load_lora_state_dict(small_gpt(), state)


def test_the_head_is_saved_where_it_was_trained() -> None:
    model = small_gpt()
    replace_linear_with_lora(model, 4, 8, skip=("head",))
    state = lora_state_dict(model, also=("head",))
    assert {name for name in state if "lora" not in name} == {"head.weight", "head.bias"}
