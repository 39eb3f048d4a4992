"""Parts of a model: where a name belongs, which layers are found, how peft is told of exactly them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from lorafy.adapter_contract import ParameterGroup
from lorafy.models.parts import ChosenParts, Parts, at_their_rates, choose_parts, parts_of_vision_language
from lorafy.models.targets import find_targets, group_targets, peft_targets
from lorafy.types import ModelError
from vision_models import VISION_MODELS

SEVEN = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
LINEAR = {
    "qwen3_vl": {"language": 2 * 7, "vision": 2 * 4, "merger": 2 + 2},
    "qwen2_5_vl": {"language": 2 * 7, "vision": 2 * 5, "merger": 2},
}
HOMES = {
    "model.visual.blocks.0.attn.qkv.weight": "vision",
    "model.visual.patch_embed.proj.bias": "vision",
    "model.visual.merger.mlp.0": "merger",
    "model.visual.merger": "merger",
    "model.visual.deepstack_merger_list.0.linear_fc1.weight": "merger",
    "model.visual": "vision",
    "model.visualiser.weight": "language",
    "model.language_model.layers.0.mlp.up_proj": "language",
    "lm_head.weight": "language",
}


def chosen_of(model: Any, *names: str) -> ChosenParts:
    chosen = choose_parts(parts_of_vision_language(model), dict.fromkeys(names, 1.0))
    assert chosen is not None
    return chosen


def said(caught: Any) -> str:
    return str(caught.value)


@pytest.mark.parametrize("prefix", ["", "base_model.model."])
def test_a_name_belongs_to_the_innermost_part(prefix: str) -> None:
    parts = parts_of_vision_language(VISION_MODELS["qwen3_vl"]())
    assert {name: parts.of(prefix + name) for name in HOMES} == HOMES
    assert parts.names == ["language", "vision", "merger"]


@pytest.mark.parametrize("family", VISION_MODELS)
def test_every_linear_layer_has_its_part(family: str) -> None:
    model = VISION_MODELS[family]()
    for part, count in LINEAR[family].items():
        found = find_targets(model, "auto", [], chosen_of(model, part))
        assert len(found) == count and all(part == chosen_of(model, part).parts.of(name) for name in found)
    every = find_targets(model, "all-linear", [], chosen_of(model, "language", "vision", "merger"))
    assert every == find_targets(model, "auto", []) and len(every) == sum(LINEAR[family].values())


@pytest.mark.parametrize("family", VISION_MODELS)
def test_by_default_no_visual_layer_is_adapted(family: str) -> None:
    model = VISION_MODELS[family]()
    default = choose_parts(parts_of_vision_language(model), None)
    assert default is not None and default.factors == {"language": 1.0} and default.frozen == ["vision", "merger"]
    for wanted in ("auto", SEVEN):
        found = find_targets(model, wanted, [], default)
        assert len(found) == 14 and not any("visual" in name for name in found)


def test_the_usual_names_reach_the_tower_where_it_is_chosen() -> None:
    model = VISION_MODELS["qwen2_5_vl"]()
    found = find_targets(model, SEVEN, [], chosen_of(model, "language", "vision"))
    assert len(found) == 14 + 6 and sum("visual" in name for name in found) == 6


def test_an_entry_of_a_frozen_part_names_the_part_to_add() -> None:
    model = VISION_MODELS["qwen3_vl"]()
    with pytest.raises(ModelError) as caught:
        find_targets(model, ["q_proj", "qkv", "linear_fc1", "up_prj"], [], chosen_of(model, "language"))
    problems = [(problem.message, problem.fix) for problem in caught.value.problems]
    assert problems[0] == (
        "'qkv' matches layers of vision alone, which is frozen",
        "remove it, or train them too: adapter.parts=[language, vision]",
    )
    assert "vision and merger" in problems[1][0] and "[language, vision, merger]" in str(problems[1][1])
    assert problems[2][0] == "'up_prj' matches no linear layer" and "did you mean up_proj" in str(problems[2][1])


def test_a_chosen_part_that_gets_nothing_is_refused() -> None:
    model = VISION_MODELS["qwen3_vl"]()
    with pytest.raises(ModelError, match=r"adapter\.parts: no layer of vision gets LoRA") as caught:
        find_targets(model, ["q_proj"], [], chosen_of(model, "language", "vision"))
    assert "qkv" in said(caught)


def test_parts_that_are_not_there_are_refused() -> None:
    with pytest.raises(ModelError, match="no effect on this model"):
        choose_parts(None, {"language": 1.0})
    assert choose_parts(None, None) is None
    with pytest.raises(ModelError) as caught:
        choose_parts(Parts({"vision": ["model.visual"]}), {"visoin": 1.0, "projector": 1.0})
    assert len(caught.value.problems) == 2
    assert "did you mean vision? its parts: language, vision" in said(caught)


@pytest.mark.parametrize("family", VISION_MODELS)
@pytest.mark.parametrize(
    "names",
    [["language"], ["vision"], ["merger"], ["language", "merger"], ["language", "vision"], ["vision", "merger"]],
    ids="+".join,
)
def test_peft_is_told_of_exactly_the_targets_in_few_words(family: str, names: list[str]) -> None:
    model = VISION_MODELS[family]()
    targets = find_targets(model, "auto", [], chosen_of(model, *names))
    words = peft_targets(model, targets)
    assert matched_by_peft(model, words) == targets
    assert len(words) < (13 if isinstance(words, list) else 400)


def matched_by_peft(model: Any, words: Sequence[str]) -> list[str]:
    """As peft reads target_modules: a list of endings, or one pattern for the full name."""
    if isinstance(words, str):
        return [name for name, _ in model.named_modules() if re.fullmatch(words, name)]
    return [name for name, _ in model.named_modules() if any(f".{name}".endswith(f".{word}") for word in words)]


def test_what_peft_is_told_is_readable() -> None:
    qwen3, qwen2_5 = VISION_MODELS["qwen3_vl"](), VISION_MODELS["qwen2_5_vl"]()
    assert peft_targets(qwen3, find_targets(qwen3, "auto", [], chosen_of(qwen3, "language"))) == SEVEN
    found = peft_targets(qwen2_5, find_targets(qwen2_5, "auto", [], chosen_of(qwen2_5, "language")))
    assert found == (
        r"model\.language_model\.layers\.\d+\.self_attn\.(k_proj|o_proj|q_proj|v_proj)"
        r"|model\.language_model\.layers\.\d+\.mlp\.(down_proj|gate_proj|up_proj)"
    )
    one = ["model.language_model.layers.1.mlp.up_proj"]
    assert peft_targets(qwen3, one) == one, "a layer among its likes has no shorter name"


def test_the_table_keeps_layers_of_two_parts_apart() -> None:
    model = VISION_MODELS["qwen2_5_vl"]()
    chosen = chosen_of(model, "language", "vision")
    groups = group_targets(model, find_targets(model, ["up_proj"], [], chosen), chosen)
    assert [(group.name, group.part, group.count) for group in groups] == [
        ("mlp.up_proj", "vision", 2),
        ("mlp.up_proj", "language", 2),
    ]
    assert group_targets(model, ["model.visual.blocks.0.attn.qkv"])[0].part is None


def test_groups_of_a_method_are_split_by_factor_and_keep_their_own() -> None:
    model = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in ("words", "tower", "merger")})
    chosen = ChosenParts(Parts({"vision": ["tower"], "merger": ["merger"]}), {"language": 1.0, "vision": 0.2})
    model["merger"].requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights, biases = [p for p in trained if p.ndim == 2], [p for p in trained if p.ndim == 1]
    given = [ParameterGroup(weights), ParameterGroup(biases, lr_scale=2.0)]
    groups = at_their_rates(given, model, chosen)
    assert [(len(group.parameters), group.lr_scale) for group in groups] == [(1, 1.0), (1, 0.2), (1, 2.0), (1, 0.4)]
    assert groups[1].parameters[0] is model["tower"].weight
    assert at_their_rates(given, model, None) == given
