"""Which layers get LoRA. Found by module type, so that GPT-2's Conv1D counts as the linear layer that it is."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from ..types import ModelError, Problem


@dataclass(frozen=True)
class TargetGroup:
    """Layers that share the end of their name, kind and shape, for the table of what matched."""

    name: str
    kind: str
    count: int
    in_features: int
    out_features: int


def find_targets(model: Any, wanted: str | Sequence[str], head: Sequence[str]) -> list[str]:
    """Full names of the layers to adapt, in model order.

    `auto` and `all-linear` take every linear layer of the base, its pooler included; a list takes the layers whose
    name equals or ends with an entry. Raises ModelError for entries that match nothing, with the near misses.
    """
    linear = linear_layers(model, head)
    if isinstance(wanted, str):
        return list(linear)
    matched = {entry: [name for name in linear if name == entry or name.endswith(f".{entry}")] for entry in wanted}
    problems = [
        Problem("adapter.target_modules", f"'{entry}' matches no linear layer", _near_misses(model, entry, linear))
        for entry, names in matched.items()
        if not names
    ]
    if problems:
        raise ModelError(problems)
    chosen = {name for names in matched.values() for name in names}
    return [name for name in linear if name in chosen]


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


def shortest_names(model: Any, targets: Sequence[str]) -> list[str]:
    """The shortest list of name endings that peft matches to exactly these layers: last names where they suffice."""
    endings = sorted({name.rpartition(".")[2] for name in targets})
    reached = [name for name, _ in model.named_modules() if name.rpartition(".")[2] in endings]
    return endings if sorted(reached) == sorted(targets) else list(targets)


def group_targets(model: Any, targets: Sequence[str]) -> list[TargetGroup]:
    """The layers counted by name (without numbers), kind and shape, in model order."""
    groups: dict[tuple[str, str, int, int], int] = defaultdict(int)
    for name in targets:
        module = model.get_submodule(name)
        rows, columns = module.weight.shape
        in_features, out_features = (rows, columns) if isinstance(module, Conv1D) else (columns, rows)
        label = ".".join(part for part in name.split(".")[-3:] if not part.isdigit())
        groups[label, type(module).__name__, in_features, out_features] += 1
    return [TargetGroup(name, kind, count, i, o) for (name, kind, i, o), count in groups.items()]


def _near_misses(model: Any, entry: str, linear: dict[str, nn.Module]) -> str:
    names = sorted({name.rpartition(".")[2] for name in linear})
    other = next((type(module).__name__ for name, module in model.named_modules() if name.endswith(entry)), None)
    near = difflib.get_close_matches(entry, names, n=3, cutoff=0.5)
    start = f"'{entry}' is there, but it is a {other}; " if other else ""
    if near:
        start += f"did you mean {' or '.join(near)}? "
    return f"{start}linear layers of this model: {', '.join(names)}"
