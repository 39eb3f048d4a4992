"""A recipe that names several adapters on one base: read, checked, and all of them loaded over the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import RunConfig, config_tree, parse_config
from ..config.flat import FLAT_NAMES, is_flat, keys_of, override_name
from ..config.load import apply_overrides, normalise_overrides, read_recipe, resolve_paths
from ..config.schema import GenerationSection, ModelSection
from ..inference.trained import Trained
from ..models.shelf import Shelf
from ..models.trained_files import read_manifest
from ..plugins import load_method
from ..run_directory import read_json
from ..types import ConfigError, ModelError, Problem, UserError
from .load import ADAPTER_CONFIG, find_trained, load_trained, require_able, require_same_base
from .runs import ADAPTERS as KEY
from .settings import generation_config
from .trust import take_trust

BESIDE = ("model", "data", "generation", "run")
"""The sections that mean something beside adapters."""

OF_THE_BASE = ("path", "revision", "dtype", "quantise")


@dataclass(frozen=True)
class AdaptersRecipe:
    """The recipe. where: its name in messages. stated: the sections that stand in it; of the others, config has what a
    tree needs, and nobody looks at it."""

    where: str
    config: RunConfig
    stated: frozenset[str]

    @property
    def names(self) -> list[str]:
        return list(self.config.adapters or ())

    @property
    def base(self) -> ModelSection | None:
        """Where the recipe says that the base lies; None: where the adapters say."""
        return self.config.model if "model" in self.stated else None

    @property
    def has_data(self) -> bool:
        return "data" in self.stated

    @property
    def tree(self) -> dict[str, Any]:
        """The recipe as plain values, as far as it has a meaning."""
        used = {KEY, "generation", "run", *self.stated}
        return {name: value for name, value in config_tree(self.config).items() if name in used}

    def path(self, name: str) -> Path:
        """The folder of an adapter, as the recipe has it."""
        return Path((self.config.adapters or {})[name])

    def require(self, name: str | None) -> str:
        """The name. Raises ConfigError where none is given or the recipe has no such adapter."""
        known = f"its adapters: {', '.join(self.names)}"
        if name is None:
            raise ConfigError(Problem("--adapter", f"{self.where} names several, and one has to be chosen", known))
        if name not in self.names:
            raise ConfigError(Problem("--adapter", f"{self.where} has no adapter '{name}'", known))
        return name


def read_adapters(recipe: Mapping[str, Any] | Path | str, overrides: Sequence[str] = ()) -> AdaptersRecipe:
    """Reads and checks the recipe, and looks at the folders that it names. Raises every mistake found."""
    if isinstance(recipe, Mapping):
        where, folder = "the recipe", Path.cwd()
        tree = json.loads(json.dumps(recipe, default=str))  # a copy; paths become text
    else:
        where, folder = str(recipe), Path(recipe).resolve().parent
        if Path(recipe).is_dir():
            raise ConfigError(_no_adapters(where))
        tree = read_recipe(Path(recipe))
    stated = {name for name in tree if name in RunConfig.model_fields}
    stated |= {keys_of(name)[0].partition(".")[0] for name in tree if name in FLAT_NAMES}
    if is_flat(tree) and "data" not in stated:
        tree["data"] = {"train": "unused"}  # else a flat recipe means the files beside it
    resolve_paths(tree, folder)
    overrides = normalise_overrides(overrides)
    problems = apply_overrides(tree, overrides)
    fix = f"remove it; beside adapters stand {', '.join(BESIDE)}"
    idle = [name for name in RunConfig.model_fields if name in tree and name not in (KEY, *BESIDE)]
    problems += [Problem(name, f"no effect in {where}, which names adapters", fix) for name in idle]
    given = {section for section in ("model", "data") if section in tree and not _is_empty(tree[section])}
    stated |= given if not is_flat(tree) else set()
    data = tree.get("data")
    if isinstance(data, dict) and "train" not in data and data.get("test"):
        data["train"] = data["test"]  # the tree wants a train; only the scored split is looked at
    tree.setdefault("data", {"train": "unused"})
    if "model" not in stated:
        tree["model"] = {"path": "minilm"}
    config = parse_config(tree, where, problems, overrides)
    if config.adapters is None:
        raise ConfigError(_no_adapters(where))
    found = AdaptersRecipe(where, config, frozenset(stated))
    _check_folders(found)
    return found


def _no_adapters(where: str) -> Problem:
    return Problem(where, "names no adapters", "give a recipe with adapters: {NAME: RUN, NAME: RUN}")


def _is_empty(section: Any) -> bool:
    return section is None or section == {}


def _check_folders(recipe: AdaptersRecipe) -> None:
    """Raises UserError for what is no adapter, and for adapters of different bases."""
    problems, sections = [], {}
    for name in recipe.names:
        try:
            sections[name] = _section_of(recipe.path(name))
        except UserError as error:
            problems += [Problem(f"{KEY}.{name}", problem.message, problem.fix) for problem in error.problems]
    if recipe.base is None and not problems:
        problems += _other_bases(sections)
    if problems:
        raise ConfigError(problems)


def _section_of(path: Path) -> dict[str, Any]:
    """What the folder says of its base. Raises UserError for a folder that cannot lie beside others."""
    folder = find_trained(path)
    if folder is None:
        raise ModelError(Problem("", f"no run or adapter in {path}", "check the path; it is relative to the recipe"))
    manifest = read_manifest(folder)
    if manifest is None:
        return {"path": read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")}
    method = load_method(manifest.method)
    if not method.keeps_base:
        message = f"{path} is a whole model ({method.title}): it shares no weights with others"
        raise ModelError(Problem("", message, "take it out, and use it by itself"))
    return manifest.model


def _other_bases(sections: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    first, *others = sections
    example = f"{{path: {sections[first]['path']}, dtype: auto}}"
    problems = []
    for name in others:
        for key in OF_THE_BASE:
            if key not in sections[name] or key not in sections[first]:
                continue  # another tool's folder says the path alone
            here, there = sections[name][key], sections[first][key]
            if here != there:
                message = f"it was trained with model.{key}: {here}, {first} with model.{key}: {there}"
                fix = f"all lie on one base here; if it is the same one, say how to load it: model: {example}"
                problems.append(Problem(f"{KEY}.{name}", message, fix))
                break
    return problems


def load_adapters(recipe: AdaptersRecipe, names: Sequence[str], *, trust: bool) -> dict[str, Trained]:
    """These adapters, LOADED, each a model of its own whose frozen weights are the same objects.

    Raises UserError where an adapter does not fit the base, or changes it.
    """
    shelf = Shelf() if len(names) > 1 else None
    found: dict[str, Trained] = {}
    for name in names:
        try:
            trained = load_trained(recipe.path(name), trust=trust, shelf=shelf, base=recipe.base)
            require_same_base(trained)
            if shelf is not None and not shelf.is_unchanged:
                message = "it changes the base's own weights, and cannot lie beside others"
                raise ModelError(Problem("", message, "take it out, and use it by itself"))
        except UserError as error:  # the weights that the others would share may be changed
            problems = [Problem(f"{KEY}.{name}", problem.message, problem.fix) for problem in error.problems]
            raise ModelError(problems) from error
        found[name] = trained
    return found


def make_ready(found: Mapping[str, Trained], ready: Callable[[str, Trained], Any]) -> dict[str, Any]:
    """Each made ready for use; what that copies of the shared weights is shared again."""
    shelf = Shelf()
    models: dict[str, Any] = {}
    for name, trained in found.items():
        models[name] = ready(name, trained)
        shelf.share(trained.model)
    return models


def take_adapters(
    model: Mapping[str, Any] | Path | str, overrides: Sequence[str]
) -> tuple[AdaptersRecipe, list[str], bool]:
    """The recipe with its overrides; those of them that mean something to one adapter too; whether code of the base may
    run."""
    overrides, said = take_trust(overrides)
    recipe = read_adapters(model, overrides)
    others = [o for o in overrides if not keys_of(override_name(o))[0].startswith(("adapters.", "model."))]
    own = recipe.base is not None and recipe.base.trust_remote_code
    return recipe, others, own if said is None else said


def load_ready(
    recipe: AdaptersRecipe, names: Sequence[str], overrides: Sequence[str], ability: str | None, *, trust: bool
) -> dict[str, Any]:
    """These adapters, ready to do this (None: anything). What a language model is asked with is the recipe's generation
    section where it has one, else that of the adapter's run."""

    def ready(name: str, trained: Trained) -> Any:
        require_able(f"{KEY}.{name}", trained, ability)
        if "write" not in trained.task.kind.abilities:
            return trained.task.ready(trained, GenerationSection(), 0)
        own = generation_config(recipe.path(name), recipe.path(name), overrides)
        generation = recipe.config.generation if "generation" in recipe.stated else own.generation
        seed = recipe.config.run.seed if "run" in recipe.stated else own.run.seed
        return trained.task.ready(trained, generation, seed)

    return make_ready(load_adapters(recipe, names, trust=trust), ready)


def refuse_adapter(model: Path | str, adapter: str | None) -> None:
    """Raises ConfigError where an adapter is chosen, and MODEL names none."""
    if adapter is not None:
        message = f"no effect: {model} is no recipe that names adapters"
        raise ConfigError(Problem("--adapter", message, "remove it, or give a recipe with adapters: {NAME: RUN}"))
