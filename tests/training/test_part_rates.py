"""A part that learns at a factor of the learning rate: its update is that factor of the full one, resumed or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_training import BagOfWords, make_training

from lorafy.adapter_contract import Attachment
from lorafy.config.schema import AdapterSection, TrainSection
from lorafy.models.parts import ChosenParts, Parts, at_their_rates, choose_parts, parts_of_vision_language
from lorafy.plugins import load_method
from lorafy.training.optim import make_optimizer
from tolerances import FLOAT32_ROUNDING
from vision_models import picture_inputs, tiny_qwen3_vl

PARTS = Parts({"head": ["head"]}, rest="words")


def at(factor: float) -> ChosenParts:
    return ChosenParts(PARTS, {"words": 1.0, "head": factor})


def moved(path: Path, parts: ChosenParts | None, num_steps: int = 1) -> dict[str, torch.Tensor]:
    """How far each parameter came from its start."""
    training = make_training(path, num_steps, parts=parts)
    training.train()
    start = BagOfWords().state_dict()
    return {name: tensor - start[name] for name, tensor in training.stepper.model.state_dict().items()}


def test_one_step_at_a_fifth_moves_a_fifth(tmp_path: Path) -> None:
    slow, full = moved(tmp_path / "slow", at(0.2)), moved(tmp_path / "full", None)
    for name in full:
        factor = 0.2 if name.startswith("head.") else 1.0
        # A difference of two float32 weights: their rounding against an update of 0.1.
        torch.testing.assert_close(slow[name], factor * full[name], rtol=0, atol=2**-22, msg=name)
    assert full["head.weight"].abs().min() > 0.05


def test_a_factor_of_one_changes_no_bit(tmp_path: Path) -> None:
    same, full = moved(tmp_path / "same", at(1.0), 6), moved(tmp_path / "full", None, 6)
    assert all(torch.equal(same[name], full[name]) for name in full)


def test_a_resumed_run_keeps_the_factors(tmp_path: Path) -> None:
    whole = make_training(tmp_path / "whole", 8, parts=at(0.2), save_every=4, keep_checkpoints=9)
    whole.train()
    again = make_training(tmp_path / "whole", 8, parts=at(0.2), save_every=4, keep_checkpoints=9)
    again.resume(4)
    assert [group["lr_scale"] for group in again.stepper.optimizer.param_groups] == [1.0, 0.2, 0.2]
    again.train()
    expected, found = whole.stepper.model.state_dict(), again.stepper.model.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def one_update(factor: float) -> dict[str, torch.Tensor]:
    """What one step of AdamW adds to each weight of a tiny Qwen3-VL, all of it trained."""
    model = tiny_qwen3_vl()
    factors = {"language": 1.0, "vision": factor, "merger": 1.0}
    chosen = choose_parts(parts_of_vision_language(model), factors)
    method: Any = load_method("full")
    request = Attachment(TrainSection(), [], "", "CAUSAL_LM", 1, chosen)  # type: ignore[arg-type]
    model = method.attach(model, request).model
    start = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    optimizer = make_optimizer(
        at_their_rates(method.parameter_groups(model, AdapterSection()), model, chosen), TrainSection()
    )
    inputs = picture_inputs(model)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    for group in optimizer.param_groups:
        group["lr"] = 0.1 * group["lr_scale"]
    optimizer.step()
    return {name: tensor.detach() - start[name] for name, tensor in model.named_parameters()}


def test_the_tower_of_a_vision_language_model_learns_at_its_factor() -> None:
    slow, full = one_update(0.2), one_update(1.0)
    parts = parts_of_vision_language(tiny_qwen3_vl())
    for name, update in full.items():
        factor = 0.2 if parts.of(name) == "vision" else 1.0
        torch.testing.assert_close(slow[name], factor * update, rtol=FLOAT32_ROUNDING, atol=2**-22, msg=name)
    assert full["model.visual.blocks.0.attn.qkv.weight"].abs().max() > 0.05
