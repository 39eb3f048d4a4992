"""Which layers get LoRA. Found by module type, so that GPT-2's Conv1D counts as the linear layer that it is."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from ..types import ModelError, Problem
from .parts import KEY, ChosenParts

TARGETS = "adapter.target_modules"


@dataclass(frozen=True)
class TargetGroup:
    """Layers that share the end of their name, kind, shape and part, for the table of what matched.

    part: None in a model of one part.
    """

    name: str
    kind: str
    count: int
    in_features: int
    out_features: int
    part: str | None = None


def find_targets(
    model: Any, wanted: str | Sequence[str], head: Sequence[str], parts: ChosenParts | None = None
) -> list[str]:
    """Full names of the layers to adapt, in model order, all of the chosen parts.

    `auto` and `all-linear` take every linear layer of the base, its pooler included; a list takes the layers whose
    name equals or ends with an entry. Raises ModelError for entries that match nothing, with the near misses, and for
    a part in which nothing is matched.
    """
    linear = linear_layers(model, head)
    trained = {name: module for name, module in linear.items() if parts is None or parts.trains(name)}
    chosen, problems = set(trained), []
    if not isinstance(wanted, str):
        matched = {entry: _matched(entry, trained) for entry in wanted}
        for entry in [entry for entry, names in matched.items() if not names]:
            elsewhere = _matched(entry, linear)
            if parts is not None and elsewhere:
                problems.append(_frozen(entry, elsewhere, parts))
            else:
                near = _near_misses(model, entry, trained)
                problems.append(Problem(TARGETS, f"'{entry}' matches no linear layer", near))
        chosen = {name for names in matched.values() for name in names}
    if problems:
        raise ModelError(problems)
    if parts is not None:
        _require_some(chosen, trained, parts)
    return [name for name in trained if name in chosen]


def _matched(entry: str, linear: Iterable[str]) -> list[str]:
    return [name for name in linear if name == entry or name.endswith(f".{entry}")]


def _frozen(entry: str, names: Sequence[str], parts: ChosenParts) -> Problem:
    """An entry whose layers are all of parts that are not trained."""
    homes = list(dict.fromkeys(parts.parts.of(name) for name in names))
    fix = f"remove it, or train them too: {KEY}=[{', '.join([*parts.factors, *homes])}]"
    return Problem(TARGETS, f"'{entry}' matches layers of {' and '.join(homes)} alone, which is frozen", fix)


def _require_some(targets: Iterable[str], trained: Iterable[str], parts: ChosenParts) -> None:
    """Raises ModelError for a part that is to be trained but gets nothing."""
    reached = {parts.parts.of(name) for name in targets}
    problems = []
    for part in parts.factors:
        if part not in reached:
            names = sorted({name.rpartition(".")[2] for name in trained if parts.parts.of(name) == part})
            fix = f"take it out of {KEY}, or name some of its layers in {TARGETS}: {', '.join(names)}"
            problems.append(Problem(KEY, f"no layer of {part} gets LoRA", fix))
    if problems:
        raise ModelError(problems)


def linear_layers(model: Any, head: Sequence[str]) -> dict[str, nn.Module]:
    """Every Linear and Conv1D of the base by full name.

    Layers of the head are trained whole and left out; so is a language model's output layer, which often is its table
    of embeddings.
    """
    output_layer = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and module is not output_layer
        and not any(name == part or name.startswith(f"{part}.") for part in head)
    }


def peft_targets(model: Any, targets: Sequence[str]) -> list[str] | str:
    """What peft matches to exactly these layers: their last names, or one pattern for all layers of a stack, where
    either suffices; else their full names."""
    modules, exact = [name for name, _ in model.named_modules()], sorted(targets)
    endings = sorted({name.rpartition(".")[2] for name in targets})
    if exact == sorted(name for name in modules if name.rpartition(".")[2] in endings):
        return endings
    pattern = _pattern(targets)
    if exact == sorted(name for name in modules if re.fullmatch(pattern, name)):
        return pattern
    return list(targets)


def _pattern(targets: Sequence[str]) -> str:
    r"""`model\.layers\.\d+\.mlp\.(down_proj|up_proj)` and the like, any number standing for each."""
    endings: dict[str, dict[str, None]] = defaultdict(dict)
    for name in targets:
        above, _, last = name.rpartition(".")
        levels = [r"\d+" if level.isdigit() else re.escape(level) for level in above.split(".")]
        endings[r"\.".join(levels)][re.escape(last)] = None
    return "|".join(rf"{above}\.({'|'.join(sorted(last))})" for above, last in endings.items())


def group_targets(model: Any, targets: Sequence[str], parts: ChosenParts | None = None) -> list[TargetGroup]:
    """The layers counted by name (without numbers), kind, shape and part, in model order."""
    groups: dict[tuple[str, str, int, int, str | None], int] = defaultdict(int)
    for name in targets:
        module = model.get_submodule(name)
        if isinstance(module, Conv1D):
            in_features, out_features = module.weight.shape
        else:  # a quantised layer keeps its weight packed
            in_features, out_features = module.in_features, module.out_features
        label = ".".join(part for part in name.split(".")[-3:] if not part.isdigit())
        home = None if parts is None else parts.parts.of(name)
        groups[label, type(module).__name__, in_features, out_features, home] += 1
    return [TargetGroup(name, kind, count, i, o, home) for (name, kind, i, o, home), count in groups.items()]


def _near_misses(model: Any, entry: str, linear: dict[str, nn.Module]) -> str:
    names = sorted({name.rpartition(".")[2] for name in linear})
    other = next((type(module).__name__ for name, module in model.named_modules() if name.endswith(entry)), None)
    near = difflib.get_close_matches(entry, names, n=3, cutoff=0.5)
    start = f"'{entry}' is there, but it is a {other}; " if other else ""
    if near:
        start += f"did you mean {' or '.join(near)}? "
    return f"{start}linear layers of this model: {', '.join(names)}"
