"""Methods on vision-language models of both families: what is trained in which part, saved, loaded and merged."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from lorafy.adapter_contract import Attachment
from lorafy.config.schema import AdapterSection
from lorafy.models.load import BaseModel
from lorafy.models.parts import choose_parts, parts_of_vision_language
from lorafy.models.precision import Precision
from lorafy.plugins import load_method
from lorafy.tasks.causal_lm import CausalLM
from lorafy.types import ModelError
from lorafy.workflows.announce import announce_model
from lorafy.workflows.build import BuiltModel
from tiny_models import build, logits_of, make_config, move_trainable
from tolerances import FLOAT32_ROUNDING
from vision_models import VISION_MODELS, picture_inputs

CPU = Precision(torch.float32, torch.device("cpu"))
EVERY = ["language", "vision", "merger"]
CHOICES = [None, ["language", "merger"], ["vision"], EVERY]
pytestmark = pytest.mark.parametrize("family", VISION_MODELS)


def attached(model: Any, **settings: Any) -> Any:
    """What the method makes of the model under these settings."""
    config = AdapterSection(**settings)
    chosen = choose_parts(parts_of_vision_language(model), config.factors)
    return load_method(config.method).attach(model, Attachment(config, [], "the base", "CAUSAL_LM", 1, chosen)).model


def trained_parts(model: Any) -> set[str]:
    parts = parts_of_vision_language(model.base_model.model if isinstance(model, peft.PeftModel) else model)
    return {parts.of(name) for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("parts", CHOICES, ids=str)
def test_lora_is_saved_loaded_and_merged(family: str, parts: list[str] | None, tmp_path: Path) -> None:
    method, make = load_method("lora"), VISION_MODELS[family]
    model = attached(make(), r=4, parts=parts)
    assert trained_parts(model) == set(parts or ["language"])
    inputs = picture_inputs(model)
    assert torch.equal(logits_of(model, inputs), logits_of(make(), inputs)), "LoRA starts as the base"
    move_trainable(model)
    expected = logits_of(model, inputs)
    assert not torch.equal(expected, logits_of(make(), inputs))
    method.save(model, tmp_path, [])
    loaded = method.load(make(), tmp_path, [])
    assert torch.equal(logits_of(loaded, inputs), expected)
    with method.as_base(loaded, [], lambda: None) as base:
        assert torch.equal(logits_of(base, inputs), logits_of(make(), inputs))
    plain = peft.PeftModel.from_pretrained(make(), str(tmp_path))
    assert torch.equal(logits_of(plain, inputs), expected), "plain peft reads it too"
    merged = method.merge(loaded)
    torch.testing.assert_close(logits_of(merged, inputs), expected, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)
    assert {name for name, _ in merged.named_parameters()} == {name for name, _ in make().named_parameters()}


def test_the_adapters_names_are_the_models(family: str, tmp_path: Path) -> None:
    method = load_method("lora")
    method.save(attached(VISION_MODELS[family](), r=4), tmp_path, [])
    names = set(load_file(tmp_path / "adapter_model.safetensors"))
    assert len(names) == 2 * 14
    assert all(name.startswith("base_model.model.model.language_model.layers.") for name in names)
    targets = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))["target_modules"]
    assert len(targets) == 7 or isinstance(targets, str), "no list of every layer"


def test_the_usual_seven_names_leave_the_tower_alone(family: str) -> None:
    seven = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = attached(VISION_MODELS[family](), target_modules=seven)
    assert trained_parts(model) == {"language"}


@pytest.mark.parametrize("parts", CHOICES, ids=str)
def test_full_trains_the_chosen_parts_whole(family: str, parts: list[str] | None, tmp_path: Path) -> None:
    method, model = load_method("full"), VISION_MODELS[family]()
    model, chosen = attached(model, method="full", parts=parts), parts_of_vision_language(model)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (chosen.of(name) in (parts or ["language"])), name
    move_trainable(model)
    method.save(model, tmp_path, [])
    loaded = type(model).from_pretrained(tmp_path, dtype=torch.float32)
    assert torch.equal(logits_of(loaded, picture_inputs(model)), logits_of(model, picture_inputs(model)))


Maker = Callable[..., tuple[BuiltModel, str]]


@pytest.fixture
def built_and_said(language_bases: dict[str, Path], sums_json: Path, monkeypatch: pytest.MonkeyPatch) -> Maker:
    """Builds the model of a recipe, and what is said about it; no task that shows pictures is needed for that."""

    def make(family: str, learning_rate: float = 1e-3, **adapter: Any) -> tuple[BuiltModel, str]:
        def load_base(task: CausalLM, *_: Any) -> BaseModel:
            model = VISION_MODELS[family](task.vocab_size + 8)
            return BaseModel(model, [], [], 0, "", parts_of_vision_language(model))

        monkeypatch.setattr(CausalLM, "load_base", load_base)
        train = {"learning_rate": learning_rate}
        built, prepared = build(make_config(language_bases["qwen3"], sums_json, adapter=adapter, train=train))
        said = StringIO()
        announce_model(Console(file=said, width=200), prepared, built, CPU)
        return built, said.getvalue()

    return make


def test_the_table_shows_the_part_of_each_layer(family: str, built_and_said: Maker) -> None:
    built, said = built_and_said(family, parts=EVERY)
    assert {group.part for group in built.targets} == set(EVERY)
    lines = {line.split()[0]: line.split()[-1] for line in said.splitlines() if line}
    assert lines["LoRA"] == "part" and lines["attn.qkv"] == "vision" and lines["self_attn.q_proj"] == "language"
    assert "Trained: language, vision, merger; frozen: nothing." in said
    _, said = built_and_said(family)
    assert "visual" not in said and "Trained: language; frozen: vision, merger." in said


def test_rates_are_said_where_they_differ(family: str, built_and_said: Maker) -> None:
    built, said = built_and_said(family, parts={"vision": 0.2, "language": 1})
    assert "Trained: language (learning rate 0.001), vision (learning rate 0.0002); frozen: merger." in said
    assert built.parts is not None and built.parts.factors == {"language": 1.0, "vision": 0.2}
    _, said = built_and_said(family, method="full")
    assert "Trained: language; frozen: vision, merger." in said


def test_an_unknown_part_is_refused_with_those_that_are_there(family: str, built_and_said: Maker) -> None:
    with pytest.raises(ModelError, match="this model has no part 'projector'") as caught:
        built_and_said(family, parts=["language", "projector"])
    assert "its parts: language, vision, merger" in str(caught.value)


def test_frozen_weights_are_held_in_the_products_type_unless_they_are_saved(family: str, built_and_said: Maker) -> None:
    for method, expected in (("lora", torch.bfloat16), ("full", torch.float32)):
        built, _ = built_and_said(family, method=method)
        built.hold_frozen(torch.bfloat16)
        model = built.model.base_model.model if method == "lora" else built.model
        assert model.get_submodule("model.visual.blocks.0.attn.qkv").weight.dtype == expected
