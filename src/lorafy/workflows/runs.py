"""Which run a recipe means: a new one, the one that it made, the one to resume."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from ..config import RunConfig, config_tree, load_config
from ..config.load import read_recipe
from ..run_directory import RunDirectory, next_run_name, numbered_runs
from ..training.processes import is_main_process
from ..types import ConfigError, Problem, RunError

ADAPTERS = "adapters"
"""The section that names several."""

Recipe = RunConfig | Mapping[str, Any] | Path | str


def names_adapters(recipe: Recipe) -> bool:
    """Whether this is a recipe with a section `adapters`."""
    if isinstance(recipe, RunConfig):
        return recipe.adapters is not None
    if isinstance(recipe, Mapping):
        return ADAPTERS in recipe
    path = Path(recipe)
    return path.suffix.lower() in (".yaml", ".yml") and path.is_file() and ADAPTERS in read_recipe(path)


def refuse_several(model: Path | str) -> None:
    """Raises ConfigError for a recipe that names adapters, where one model is wanted."""
    if names_adapters(model):
        fix = "name the folder of one of them, or use predict, generate, chat, evaluate or combine"
        raise ConfigError(Problem(str(model), "names several adapters, and this verb takes one model", fix))


def new_run(config: RunConfig, stem: str) -> RunDirectory:
    """A free directory, the same in all processes. Raises RunError where the one that is named is not free."""
    output_dir = Path(config.run.output_dir)
    names = [config.run.name or next_run_name(output_dir, stem)]
    run = RunDirectory(output_dir / broadcast_object_list(names)[0])
    if is_main_process():
        run.require_free()
    return run


def is_config_of_run(path: Path) -> bool:
    """Whether this file is the config.yaml that a run wrote."""
    run = RunDirectory(path.parent)
    return run.is_run and run.config == path


def find_run(recipe: Recipe, config: RunConfig, stem: str) -> RunDirectory:
    """The run that a recipe made: the one it names, else its highest number. Raises RunError where there is none."""
    output_dir = Path(config.run.output_dir)
    path = Path(recipe) if isinstance(recipe, Path | str) else None
    if path is not None and path.is_dir():
        run = RunDirectory(path)
    elif path is not None and is_config_of_run(path):
        run = RunDirectory(path.parent)
    elif config.run.name:
        run = RunDirectory(output_dir / config.run.name)
    else:
        numbers = numbered_runs(output_dir, stem)
        if not numbers:
            raise RunError(Problem(str(output_dir), f"holds no run of {stem}", "train it first, without --resume"))
        run = RunDirectory(output_dir / f"{stem}-{numbers[-1]}")
    if not run.is_run:
        raise RunError(Problem(str(run.path), "holds no run", "train it first, without --resume"))
    return run


def run_to_resume(recipe: Recipe, config: RunConfig, stem: str) -> RunDirectory:
    """The run that this recipe made. Raises RunError where it says something else than the run's own."""
    run = find_run(recipe, config, stem)
    differing = config_differences(config, load_config(run.config))
    if differing:
        message = f"the recipe differs from the run's in {', '.join(differing)}"
        fix = f"a resumed run is the same run: lorafy train {run.path} --resume; or start a new one"
        raise RunError(Problem(str(run.path), message, fix))
    return run


def config_differences(left: RunConfig, right: RunConfig) -> list[str]:
    """Dotted keys whose values differ; the run's name and place do not count."""

    def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in tree.items():
            found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        return found

    a, b = leaves(config_tree(left)), leaves(config_tree(right))
    keys = sorted(set(a) | set(b))
    return [key for key in keys if key not in ("run.name", "run.output_dir") and a.get(key) != b.get(key)]


def with_run(config: RunConfig, run: Path) -> RunConfig:
    """The config with this run's name and place in it."""
    section = config.run.model_copy(update={"name": run.name, "output_dir": str(run.resolve().parent)})
    return config.model_copy(update={"run": section})
