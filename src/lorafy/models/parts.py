"""A model's parts, such as language and vision: which of them a name belongs to, which are trained, and how fast."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..adapter_contract import ParameterGroup
from ..types import ModelError, Problem

PEFT_PREFIX = "base_model.model."
"""Before every name of a model that peft wrapped."""

KEY = "adapter.parts"


@dataclass(frozen=True)
class Parts:
    """The parts of a model, by modules. A name belongs to the innermost of them; what is in none belongs to `rest`."""

    modules: Mapping[str, Sequence[str]]
    rest: str = "language"

    @property
    def names(self) -> list[str]:
        return [self.rest, *self.modules]

    def of(self, name: str) -> str:
        """The part of a module or parameter, of the model itself or as peft wrapped it."""
        bare = f"{name.removeprefix(PEFT_PREFIX)}."
        around = [(len(m), part) for part, modules in self.modules.items() for m in modules if bare.startswith(f"{m}.")]
        return max(around)[1] if around else self.rest


@dataclass(frozen=True)
class ChosenParts:
    """The parts that are trained, each with its factor on the learning rate; the others are frozen."""

    parts: Parts
    factors: Mapping[str, float]

    def trains(self, name: str) -> bool:
        """Whether this module or parameter is of a part that is trained."""
        return self.parts.of(name) in self.factors

    @property
    def frozen(self) -> list[str]:
        return [part for part in self.parts.names if part not in self.factors]

    @property
    def has_rates(self) -> bool:
        """Whether a part learns at another rate than the recipe's."""
        return any(factor != 1 for factor in self.factors.values())


def parts_of_vision_language(model: Any) -> Parts:
    """language, vision (the tower) and merger (all that takes the tower's outputs to the language model's width) of
    Qwen2.5-VL and Qwen3-VL."""
    tower = "model.visual"
    mergers = [f"{tower}.{name}" for name, _ in model.get_submodule(tower).named_children() if "merger" in name]
    assert mergers, f"{type(model).__name__} has a tower without a merger"
    return Parts({"vision": [tower], "merger": mergers})


def choose_parts(parts: Parts | None, wanted: Mapping[str, float] | None) -> ChosenParts | None:
    """The parts to train. wanted: the recipe's; None: the rest alone. Gives None for a model of one part.

    Raises ModelError for parts that the model does not have.
    """
    if parts is None:
        if wanted is not None:
            raise ModelError(Problem(KEY, "no effect on this model, which is of one part", "remove it"))
        return None
    if wanted is None:
        return ChosenParts(parts, {parts.rest: 1.0})
    unknown = [name for name in wanted if name not in parts.names]
    if unknown:
        raise ModelError([Problem(KEY, f"this model has no part '{name}'", _known(name, parts)) for name in unknown])
    return ChosenParts(parts, {name: wanted[name] for name in parts.names if name in wanted})


def _known(name: str, parts: Parts) -> str:
    near = difflib.get_close_matches(name, parts.names, n=1, cutoff=0.6)
    return f"{f'did you mean {near[0]}? ' if near else ''}its parts: {', '.join(parts.names)}"


def at_their_rates(groups: Sequence[ParameterGroup], model: Any, chosen: ChosenParts | None) -> list[ParameterGroup]:
    """A method's groups of `model`, split so that each part's factor is on its learning rate."""
    if chosen is None:
        return list(groups)
    factors = {id(p): chosen.factors[chosen.parts.of(name)] for name, p in model.named_parameters() if p.requires_grad}
    split = []
    for group in groups:
        by_factor: dict[float, list[Any]] = defaultdict(list)
        for parameter in group.parameters:
            by_factor[factors[id(parameter)]].append(parameter)
        split += [replace(group, parameters=of, lr_scale=group.lr_scale * f) for f, of in by_factor.items()]
    return split
