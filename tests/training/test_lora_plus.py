"""LoRA+ (`adapter.lr_ratio`): B learns at so many times the rate of A, beside the factors of parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lorafy.adapter_contract import Attachment
from lorafy.config.schema import AdapterSection, TrainSection
from lorafy.models.parts import at_their_rates, choose_parts, parts_of_vision_language
from lorafy.plugins import load_method
from lorafy.training.optim import make_optimizer
from lorafy.types import ConfigError
from tiny_models import build, make_config
from vision_models import tiny_qwen3_vl


def rates(groups: Any, model: Any) -> dict[str, float]:
    """The factor of each trained tensor, by name; each is in one group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [(names[id(parameter)], group.lr_scale) for group in groups for parameter in group.parameters]
    assert len(dict(found)) == len(found) == sum(p.requires_grad for p in model.parameters())
    return dict(found)


@pytest.mark.parametrize("method", ["lora", "dora", "pissa"])
def test_b_alone_learns_faster(base_models: dict[str, Path], sms_csv: Path, method: str) -> None:
    built, prepared = build(make_config(base_models["bert"], sms_csv, adapter={"method": method, "lr_ratio": 16}))
    groups = built.method.parameter_groups(built.model, prepared.config.adapter)
    for name, rate in rates(groups, built.model).items():
        assert rate == (16 if ".lora_B." in name else 1), name


def test_one_update_of_b_is_that_many_times_as_far(base_models: dict[str, Path], sms_csv: Path) -> None:
    """AdamW's first step moves every weight with a gradient by its rate."""
    built, prepared = build(make_config(base_models["bert"], sms_csv, adapter={"lr_ratio": 4}))
    groups = built.method.parameter_groups(built.model, prepared.config.adapter)
    optimizer = make_optimizer(groups, TrainSection())
    start = {name: p.detach().clone() for name, p in built.model.named_parameters() if p.requires_grad}
    for group in optimizer.param_groups:
        group["lr"] = 0.01 * group["lr_scale"]
        for parameter in group["params"]:
            parameter.grad.fill_(1.0)
    optimizer.step()
    for name, before in start.items():
        moved = before - built.model.get_parameter(name).detach()
        expected = torch.full_like(moved, 0.04 if ".lora_B." in name else 0.01)
        torch.testing.assert_close(moved, expected, rtol=0, atol=2**-22, msg=name)


def test_it_multiplies_the_factor_of_a_part() -> None:
    model = tiny_qwen3_vl()
    chosen = choose_parts(parts_of_vision_language(model), {"language": 1.0, "vision": 0.5})
    config, method = AdapterSection(lr_ratio=8, r=4), load_method("lora")
    model = method.attach(model, Attachment(config, [], "", "CAUSAL_LM", 1, chosen)).model
    for name, rate in rates(at_their_rates(method.parameter_groups(model, config), model, chosen), model).items():
        part = 0.5 if ".visual." in name else 1.0
        assert rate == part * (8 if ".lora_B." in name else 1), name


@pytest.mark.parametrize("method", ["full", "none"])
def test_a_method_without_b_refuses_it(tmp_path: Path, method: str) -> None:
    with pytest.raises(ConfigError, match=f"adapter.lr_ratio: no effect with method: {method}"):
        make_config(tmp_path, tmp_path / "x.csv", adapter={"method": method, "lr_ratio": 16})
