"""The learning rate at the ends of the schedule, and which parameters decay."""

import math

import pytest
import torch

from lorafy.config.schema import AdapterSection, TrainSection
from lorafy.plugins import load_method
from lorafy.training.optim import learning_rate_at, make_optimizer, warmup_steps

PEAK = 0.5


def rates(num_steps: int, **settings) -> list[float]:
    config = TrainSection(**settings)
    return [learning_rate_at(step, num_steps, PEAK, config) for step in range(1, num_steps + 1)]


def test_linear_from_the_peak_down_to_one_step_above_zero():
    assert rates(10, schedule="linear", warmup=0) == pytest.approx([PEAK * (10 - k) / 10 for k in range(10)])


def test_cosine():
    expected = [PEAK * 0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8)]
    assert rates(8, schedule="cosine", warmup=0) == pytest.approx(expected)


def test_constant_after_the_warmup():
    assert rates(6, schedule="constant", warmup=3) == pytest.approx([PEAK / 3, PEAK * 2 / 3, PEAK, PEAK, PEAK, PEAK])


def test_warmup_rises_to_the_peak_and_the_first_step_learns():
    values = rates(20, schedule="linear", warmup=0.2)
    assert values[:4] == pytest.approx([PEAK * k / 4 for k in (1, 2, 3, 4)])
    assert values[4:] == pytest.approx([PEAK * (16 - k) / 16 for k in range(16)])


@pytest.mark.parametrize(("warmup", "num_steps", "expected"), [(0.06, 100, 6), (0.06, 10, 1), (5, 100, 5), (0, 9, 0)])
def test_warmup_is_a_share_below_one_and_a_number_of_steps_from_one_on(warmup, num_steps, expected):
    assert warmup_steps(TrainSection(warmup=warmup), num_steps) == expected


def test_a_warmup_longer_than_the_run_only_rises():
    assert rates(4, warmup=8) == pytest.approx([PEAK * k / 8 for k in (1, 2, 3, 4)])


def test_one_step_learns_at_the_peak():
    assert rates(1, warmup=0) == [PEAK]


def test_weight_decay_is_on_matrices_only_and_frozen_parameters_are_left_out():
    model = torch.nn.Sequential(torch.nn.Embedding(4, 3), torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    frozen = torch.nn.Linear(2, 2).requires_grad_(False)
    model.append(frozen)
    values = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = make_optimizer(
        load_method("lora").parameter_groups(model, AdapterSection()), TrainSection(weight_decay=0.1)
    )
    flat = {group["weight_decay"]: group["params"][0] for group in optimizer.param_groups}
    groups = {0.1: ["0.weight", "1.weight"], 0.0: ["1.bias", "2.weight", "2.bias"]}
    for decay, names in groups.items():
        assert torch.equal(flat[decay], torch.cat([values[name].flatten() for name in names]))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, values[name]), "a view of the same values"
        assert (parameter.grad is None) == (not parameter.requires_grad)
    group = optimizer.param_groups[0]
    assert (group["betas"], group["eps"], group["lr"]) == ((0.9, 0.999), 1e-8, 0.0)


def test_parameters_and_gradients_are_views_of_what_the_optimizer_sees():
    model = torch.nn.Linear(3, 2)
    optimizer = make_optimizer(load_method("lora").parameter_groups(model, AdapterSection()), TrainSection())
    model(torch.ones(4, 3)).sum().backward()
    matrix = optimizer.param_groups[0]["params"][0]
    assert torch.equal(matrix.grad, torch.full((6,), 4.0))
    optimizer.param_groups[0]["lr"] = 0.5
    before = model.weight.detach().clone()
    optimizer.step()
    assert (model.weight - before).abs().min() > 0.4
    optimizer.zero_grad(set_to_none=False)
    assert model.weight.grad is not None and model.weight.grad.count_nonzero() == 0
