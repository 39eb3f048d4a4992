"""What `lorafy compare` trains side by side: methods, and well-known settings of one, each as a recipe of its own."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..adapter_contract import AdapterMethod
from ..config import RunConfig, config_tree
from ..config.schema import settings_of
from ..contracts import TaskKind
from ..plugins import load_method, plugin_names
from ..types import ConfigError, Problem


@dataclass(frozen=True)
class Candidate:
    """One of them: a method with what sets it apart, as settings of the recipe's adapter section."""

    name: str
    title: str
    method: AdapterMethod
    method_name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    quantised: bool = False

    def tree(self, config: RunConfig, learning_rate: float, seed: int, run_name: str, folder: Path) -> dict[str, Any]:
        """The recipe of one run, complete. learning_rate: of the recipe's own method.

        What the recipe says of the adapter holds for every method that knows the setting; its learning rate for those
        whose own default is that of its method (LoRA's would destroy a fully trained model).
        """
        tree, own = config_tree(config), load_method(config.adapter.method)
        given = config.adapter.model_dump(mode="json", include=config.adapter.model_fields_set)
        known = settings_of(self.method_name)
        tree["adapter"] = {key: value for key, value in given.items() if key in known}
        tree["adapter"] |= {"method": self.method_name, **self.settings}
        tree["model"]["quantise"] = (config.model.quantise or "nf4") if self.quantised else None
        is_alike = self.method.learning_rate == own.learning_rate
        tree["train"]["learning_rate"] = learning_rate if is_alike else self.method.learning_rate
        tree["run"] |= {"seed": seed, "name": run_name, "output_dir": str(folder)}
        return tree


def default_candidates(kind: TaskKind, config: RunConfig) -> list[Candidate]:
    """The methods that ask to be compared and have something to train here, in their order; where the recipe quantises
    its base, in the form that does."""
    methods = {name: load_method(name) for name in plugin_names("adapters")}
    orders = {name: method.compare_order for name, method in methods.items() if method.compare_order is not None}
    names = [name for name in sorted(orders, key=orders.__getitem__) if _fits(kind, methods[name])]
    if config.model.quantise is None:
        return [_candidate(name) for name in names]
    quantised = {
        name: next((form for form, each in methods[name].forms.items() if each.quantised), name) for name in names
    }
    return [_candidate(quantised[name]) for name in names]


def named_candidates(kind: TaskKind, names: Sequence[str]) -> list[Candidate]:
    """Those with these names, in this order. Raises ConfigError for every name that means none or stands there twice,
    and for a method that has nothing to train here."""
    known = [*plugin_names("adapters"), *_forms()]
    problems = []
    for name in dict.fromkeys(names):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            fix = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            problems.append(Problem("--methods", f"'{name}' is no method", fix))
        elif not _fits(kind, _candidate(name).method):
            message = f"{name}: {kind.noun} has no head that could be trained alone"
            problems.append(Problem("--methods", message, "leave it out"))
        if names.count(name) > 1:
            problems.append(Problem("--methods", f"'{name}' stands there more than once", "name it once"))
    if problems:
        raise ConfigError(problems)
    return [_candidate(name) for name in names]


def _fits(kind: TaskKind, method: AdapterMethod) -> bool:
    return kind.has_head or not method.needs_head


def _forms() -> dict[str, str]:
    """The names of all forms, with their methods' names."""
    return {form: name for name in plugin_names("adapters") for form in load_method(name).forms}


def _candidate(name: str) -> Candidate:
    method_name = _forms().get(name, name)
    method = load_method(method_name)
    if name == method_name:
        return Candidate(name, method.title, method, method_name, quantised=method.needs_packed)
    form = method.forms[name]
    return Candidate(name, form.title, method, method_name, form.settings, form.quantised)
