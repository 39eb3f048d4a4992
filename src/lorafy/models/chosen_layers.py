"""Which of the matched layers get LoRA after all, the rank of each, and what is trained whole beside them."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peft.utils.other import get_pattern_key
from torch import nn

from ..kernels.packed import is_packed
from ..types import ModelError, Problem
from .parts import KEY, ChosenParts

EXCLUDE, LAYERS, WHOLE = "adapter.exclude_modules", "adapter.layers_to_transform", "adapter.modules_to_save"


def narrowed(targets: Sequence[str], exclude: Sequence[str] | None, layers: int | Sequence[int] | None) -> list[str]:
    """The layers that stay. exclude: as adapter.exclude_modules, layers: as adapter.layers_to_transform; what lies in
    no layer of a stack, as a pooler, goes with the latter. Raises ModelError for what has no effect."""
    problems, gone = [], set()
    for entry in exclude or ():
        named = [name for name in targets if ends_with(name, entry)]
        gone.update(named)
        if not named:
            near = _near(entry, _last_names(targets))
            problems.append(Problem(EXCLUDE, f"'{entry}' matches no layer that would get LoRA", near))
    wanted = [layers] if isinstance(layers, int) else layers
    if wanted is not None:
        there = sorted({number for number in map(layer_number, targets) if number is not None})
        absent = sorted(set(wanted) - set(there))
        known = f"its layers with linear ones are {there[0]} to {there[-1]}" if there else "it has no stack of layers"
        problems += [Problem(LAYERS, f"this model has no layer {number}", known) for number in absent]
    stay = [name for name in targets if name not in gone and (wanted is None or layer_number(name) in wanted)]
    if not stay and not problems:
        problems.append(Problem(EXCLUDE if exclude else LAYERS, "no layer is left for LoRA", "name fewer"))
    if problems:
        raise ModelError(problems)
    return stay


def ends_with(name: str, entry: str) -> bool:
    """Whether an entry of a list of names means this module: it is its name or the end of it."""
    return name == entry or name.endswith(f".{entry}")


def layer_number(name: str) -> int | None:
    """The place in the stack: the first number in a name, for an expert has one too. None outside of a stack."""
    return next((int(level) for level in name.split(".") if level.isdigit()), None)


def require_ranks(
    model: Any, targets: Sequence[str], r: int, ranks: Mapping[str, int], alphas: Mapping[str, float]
) -> None:
    """Raises ModelError for a pattern that decides nothing, and for a rank above the size of its layer, which BA cannot
    have. ranks, alphas: as peft reads them, by the first pattern that fits the end of a name."""
    problems = _useless(targets, "adapter.rank_pattern", ranks) + _useless(targets, "adapter.alpha_pattern", alphas)
    if not problems:
        too_large: dict[tuple[int, int], list[str]] = defaultdict(list)
        for name in targets:
            rank, size = ranks.get(get_pattern_key(list(ranks), name), r), _size(model.get_submodule(name))
            if rank > size:
                too_large[rank, size].append(name)
        for (rank, size), names in too_large.items():
            message = f"rank {rank} is above the size of {len(names):,} layers, {names[0]} the first: {size}"
            last = ", ".join(f"{name}: {size}" for name in _last_names(names))
            fix = f"lower adapter.r, set adapter.rank_pattern={{{last}}}, or name them in {EXCLUDE}"
            problems.append(Problem("adapter.r", message, fix))
    if problems:
        raise ModelError(problems)


def _useless(targets: Sequence[str], key: str, pattern: Mapping[str, Any]) -> list[Problem]:
    problems = []
    for entry in pattern:
        try:
            re.compile(entry)
        except re.error as error:
            return [Problem(key, f"'{entry}' is no regular expression: {error}", "give the end of a layer's name")]
    deciding = {get_pattern_key(list(pattern), name) for name in targets}
    for entry in pattern:
        if entry in deciding:
            continue
        if any(get_pattern_key([entry], name) == entry for name in targets):
            message, fix = f"'{entry}' has no effect: entries before it decide all of its layers", "put it before them"
        else:
            message, fix = f"'{entry}' matches no layer that gets LoRA", _near(entry, _last_names(targets))
        problems.append(Problem(key, message, fix))
    return problems


def whole_modules(
    model: Any,
    wanted: Sequence[str] | None,
    head: Sequence[str],
    targets: Sequence[str],
    parts: ChosenParts | None,
    *,
    named: bool,
) -> list[str]:
    """Full names of the modules that are trained whole beside LoRA, without the head, which is so anyway.

    named: the recipe names the layers that get LoRA, so that none of them may be trained whole.
    """
    modules, problems = dict(model.named_modules()), []
    found: list[str] = []
    for entry in wanted or ():
        names = [name for name in modules if ends_with(name, entry)]
        if not names:
            problems.append(Problem(WHOLE, f"'{entry}' matches no module", _near(entry, _last_names(modules))))
        elif all(_is_of(name, head) for name in names):
            problems.append(Problem(WHOLE, f"'{entry}' is trained anyway: it is of the head", "remove it"))
        elif any(is_packed(modules[name]) for name in names):
            message = f"'{entry}' is quantised, and only whole weights can be trained"
            problems.append(Problem(WHOLE, message, "remove it, or model.quantise"))
        elif not any(True for name in names for _ in modules[name].parameters()):
            problems.append(Problem(WHOLE, f"'{entry}' has nothing that could be trained", "remove it"))
        elif parts is not None and not all(map(parts.trains, names)):
            frozen = next(name for name in names if not parts.trains(name))
            fix = f"remove it, or train that part too: {KEY}"
            problems.append(Problem(WHOLE, f"{frozen} is of {parts.parts.of(frozen)}, which is frozen", fix))
        elif any(isinstance(modules[name], nn.ModuleList | nn.ModuleDict) for name in names):
            problems.append(Problem(WHOLE, f"'{entry}' is a list of modules", "name what is in it"))
        elif named and any(_is_of(target, names) for target in targets):
            message = f"'{entry}' holds layers of adapter.target_modules: they would be trained whole and get LoRA"
            problems.append(Problem(WHOLE, message, "name it in one of them"))
        found += names
    if problems:
        raise ModelError(problems)
    return list(dict.fromkeys(found))


def _is_of(name: str, modules: Iterable[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def without(targets: Sequence[str], modules: Sequence[str]) -> list[str]:
    """The layers that do not lie in these modules."""
    return [name for name in targets if not _is_of(name, modules)]


def _size(layer: Any) -> int:
    """The smaller of a layer's two sides."""
    if isinstance(layer, nn.Linear):  # a quantised one keeps its weight packed
        return min(layer.in_features, layer.out_features)
    return min(layer.weight.shape)


def _last_names(names: Iterable[str]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in names if not name.rpartition(".")[2].isdigit()} - {""})


def _near(entry: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(entry.rpartition(".")[2], names, n=3, cutoff=0.5)
    start = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{start}there are {', '.join(names)}"
