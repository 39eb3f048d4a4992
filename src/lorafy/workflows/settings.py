"""Which settings a verb takes beside its MODEL, and what they are laid over: its run's recipe, or none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import RunConfig, load_config, parse_config
from ..config.flat import keys_of, override_name
from ..config.load import apply_overrides
from ..config.schema import DEFAULT_SPLIT
from ..run_directory import RunDirectory
from ..types import ConfigError, Problem
from .load import find_trained
from .trust import take_trust, trust_for


def generation_config(model: Path, path: Path, overrides: Sequence[str]) -> RunConfig:
    """The given recipe's settings, else the run's, else the defaults; only `generation` and the seed may be set."""
    refuse_others(overrides, ("generation.", "run.seed"), "talking with a model")
    if sets("generation.model", overrides) and not model.is_file():
        problem = Problem("generation.model", "no effect: the model is named already", f"it is {model}; remove this")
        raise ConfigError(problem)
    run = next((run for run in map(RunDirectory, (path, path.parent)) if run.is_run), None)
    recipe = model if model.is_file() else None if run is None else run.config
    if recipe is not None:
        return load_config(recipe, overrides)
    tree: dict[str, Any] = {"model": {"path": str(path)}, "data": {"train": "unused"}}  # the tree wants some data
    return parse_config(tree, "the overrides", apply_overrides(tree, overrides), overrides)


def only_trust(model: Path | str, overrides: Sequence[str], what: str) -> bool:
    """Whether code of MODEL may run, for a verb that has no other settings."""
    rest, said = take_trust(overrides)
    refuse_others(rest, (), what)
    return trust_for(model, said)


def refuse_others(overrides: Sequence[str], allowed: tuple[str, ...], what: str) -> None:
    """Raises ConfigError for settings that this verb does not look at."""
    others = [o for o in overrides if any(not key.startswith(allowed) for key in keys_of(override_name(o)))]
    if others:
        names = [f"{name}*" if name.endswith(".") else name for name in allowed]
        fix = f"here only {', '.join(names)}" if names else "remove it"
        raise ConfigError([Problem(other, f"no effect on {what}", fix) for other in others])


def sets(key: str, overrides: Sequence[str]) -> bool:
    return any(key in keys_of(override_name(override)) for override in overrides)


def data_config(path: Path, overrides: Sequence[str]) -> RunConfig:
    """The run's own recipe with overrides on it, or for another MODEL a recipe made of the overrides alone."""
    refuse_others([o for o in overrides if "=" in o], ("data.", "generation.", "run.seed"), "an evaluation")
    run = RunDirectory(path)
    if not run.is_run and find_trained(path) is not None and RunDirectory(path.parent).is_run:
        run = RunDirectory(path.parent)
    if run.is_run:
        if sets("data.validation", overrides):
            overrides = [*overrides, f"data.split={list(DEFAULT_SPLIT)}"]  # the run's own has nothing left to say
        return load_config(run.config, overrides)
    tree: dict[str, Any] = {"model": {"path": str(path)}}
    problems = apply_overrides(tree, overrides)
    data = tree.get("data")
    if isinstance(data, dict) and "train" not in data and data.get("test"):
        data["train"] = data["test"]  # the tree wants a train; only the scored split is looked at
    elif not data and path.exists():
        raise ConfigError(Problem(str(path), "is no run, so it has no data", "give some: data.test=FILE"))
    elif not data:
        fix = "check the path; for a model of the hub also give data.test=FILE"
        raise ConfigError(Problem(str(path), "no such run or folder", fix))
    return parse_config(tree, "the overrides", problems)
