"""YAML + overrides -> RunConfig. All mistakes are collected and raised together, with the nearest known name."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ..types import ConfigError, Problem
from .flat import (
    BATCH_NAMES,
    FLAT_NAMES,
    conflicts,
    expand,
    is_flat,
    keys_of,
    override_conflicts,
    override_flat,
    override_name,
    put,
    settle,
    touched,
)
from .problems import all_keys, is_section_rule, known_names, location, to_problems
from .schema import RunConfig

PATHS = (
    "data.train", "data.validation", "data.test", "data.images", "model.path", "run.output_dir", "generation.model",
)  # fmt: skip
FOLDERS = ("output_dir", "images", "folder")
"""Keys whose value is a path, whatever it looks like: never a hub name."""
FILE_SUFFIXES = {".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet"}


def load_config(recipe: Path | str, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a recipe. Paths written in it are relative to its folder, paths in overrides to the current one.

    Raises ConfigError with every mistake found, in the file and in the overrides.
    """
    recipe = Path(recipe)
    tree = read_recipe(recipe)
    resolve_paths(tree, recipe.resolve().parent)
    overrides = normalise_overrides(overrides)
    return parse_config(tree, str(recipe), apply_overrides(tree, overrides), overrides)


def read_recipe(recipe: Path) -> dict[str, Any]:
    if not recipe.is_file():
        raise ConfigError(_missing_recipe(recipe))
    try:
        tree = yaml.load(recipe.read_text(encoding="utf-8-sig"), _RecipeLoader)
    except UnicodeDecodeError as error:
        raise ConfigError(Problem(str(recipe), "not UTF-8", "save the recipe as UTF-8")) from error
    except OSError as error:
        raise ConfigError(Problem(str(recipe), f"cannot be read: {error.strerror}")) from error
    except (yaml.YAMLError, RecursionError) as error:
        where, reason = str(recipe), str(error)
        if isinstance(error, yaml.MarkedYAMLError):
            where = f"{recipe}, line {error.problem_mark.line + 1}" if error.problem_mark else where
            reason = error.problem or reason
        raise ConfigError(
            Problem(where, f"not valid YAML: {reason}", "check indentation, colons and quotes")
        ) from error
    if not isinstance(tree, dict):
        raise ConfigError(Problem(str(recipe), "should hold sections such as model: and data:", "see recipes/"))
    return tree


class _RecipeLoader(yaml.SafeLoader):
    """YAML takes the last of two equal keys in silence; here that is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"'{key.value}' stands there twice", problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def parse_config(
    tree: Mapping[str, Any], where: str, problems: Sequence[Problem] = (), overrides: Sequence[str] = ()
) -> RunConfig:
    """Validates a tree of plain values, flat names among them. `problems` found earlier are raised with the new ones.

    `where` and `overrides` say in messages where a value stands.
    """
    tree, spelt, wrong = expand(tree)
    problems = list(dict.fromkeys([*problems, *wrong]))
    names = [name for name in map(override_name, overrides) if name in FLAT_NAMES and name not in BATCH_NAMES]
    spelt = {key: name for name in names for key in keys_of(name)} | spelt
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        found = [*problems, *to_problems(error.errors(), where, overrides, spelt)]
        hidden = to_problems(_hidden_mistakes(tree, error.errors()), where, overrides, spelt)
        raise ConfigError([*found, *(problem for problem in hidden if problem not in found)]) from error
    if problems:
        raise ConfigError(problems)
    return config


def _hidden_mistakes(tree: Mapping[str, Any], details: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Mistakes between the keys of a section, which pydantic looks for only where each key is right by itself.

    So the tree is looked at again without its wrong keys.
    """
    mended, leaves = copy.deepcopy(dict(tree)), set(all_keys())
    for detail in details:
        *parents, last = location(detail) or [""]
        if is_section_rule(detail):
            continue
        node, key = mended, last
        for depth, parent in enumerate(parents, start=1):
            if not isinstance(node.get(parent), dict) or ".".join(parents[:depth]) in leaves:
                key = parent  # an item of a list or mapping: the whole of it goes
                break
            node = node[parent]
        if detail["type"] == "missing":
            node[key] = "?"
        else:
            node.pop(key, None)
    try:
        RunConfig.model_validate(mended)
    except ValidationError as error:
        return [detail for detail in error.errors() if is_section_rule(detail)]
    return []


def normalise_overrides(words: Sequence[str], options: Sequence[str] = ()) -> list[str]:
    """`name=value` for each of `--name value`, `--name=value` and `--section.key value`; other words stay as they are.

    `options` are what the command knows besides, such as --resume; they are named for a word that is misspelt.
    Raises ConfigError for a name that is unknown or has no value.
    """
    normal: list[str] = []
    problems: list[Problem] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            normal.append(word)
            continue
        name, equals, value = word.partition("=")
        name = name.lstrip("-").replace("-", "_")
        known = word.startswith("--") and ("." in name or name in FLAT_NAMES or name in RunConfig.model_fields)
        if not known:
            problems.append(_unknown_word(word.partition("=")[0], name, options))
        if equals:
            normal.append(f"{name}={value}")
        elif not rest or rest[0].startswith("--"):
            if known:
                problems.append(Problem(word, "has no value", f"write {word} VALUE, or {name}=VALUE"))
        elif known or "=" not in rest[0]:
            normal.append(f"{name}={rest.pop(0)}")
    if problems:
        raise ConfigError(problems)
    return normal


def _unknown_word(word: str, name: str, options: Sequence[str]) -> Problem:
    known = {key: f"--{shown}" for key, shown in known_names().items()}
    known |= {option.lstrip("-").replace("-", "_"): option for option in options}
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    fix = f"did you mean {known[near[0]]}?" if near else "docs/config.md lists the settings, --help the options"
    return Problem(word, "is neither an option nor a setting", fix)


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> list[Problem]:
    """Sets all of them, in place; each wins over the tree's value in either spelling. Gives what is wrong."""
    problems = [*conflicts(tree), *override_conflicts(overrides)]
    return problems + [problem for override in overrides if (problem := apply_override(tree, override))]


def apply_override(tree: dict[str, Any], override: str) -> Problem | None:
    """Sets `section.key=value` or `flat_name=value`; the value is YAML, so numbers, lists and null work."""
    name, equals, text = override.partition("=")
    name = name.strip()
    if not equals or not all(name.split(".")):
        return Problem(override, "an override is written section.key=value", "for example train.num_epochs=1")
    try:
        value = yaml.safe_load(text) if text else None
    except yaml.YAMLError:
        value = text
    key = keys_of(name)[0]
    if key in PATHS:
        value = resolve_path(value, Path.cwd(), key.rpartition(".")[2])
    if key.startswith("adapters."):
        value = resolve_path(value, Path.cwd(), "folder")
    if name in FLAT_NAMES:
        return override_flat(tree, name, value)
    settle(tree, touched(tree, name))  # of a flat name that decides more than this key, the rest stays
    blocked = put(tree, name, value)
    return Problem(override, f"{blocked} holds a value, not a section") if blocked else None


def resolve_paths(tree: dict[str, Any], folder: Path) -> None:
    """Makes the tree's relative paths absolute, in place; a flat recipe gets its default data there."""
    if is_flat(tree):
        _default_data(tree, folder)
    adapters = tree.get("adapters")
    if isinstance(adapters, dict):
        adapters.update({name: resolve_path(value, folder, "folder") for name, value in adapters.items()})
    places = [(tree.get(path.partition(".")[0]), path.partition(".")[2], path) for path in PATHS]
    places += [(tree, name, keys_of(name)[0]) for name in FLAT_NAMES if keys_of(name)[0] in PATHS]
    for node, key, path in places:
        if isinstance(node, dict) and key in node:
            node[key] = resolve_path(node[key], folder, path.rpartition(".")[2])


def _default_data(tree: dict[str, Any], folder: Path) -> None:
    data = {} if tree.get("data") is None else tree["data"]
    if not isinstance(data, dict):
        return  # told when the tree is validated
    if "train" not in data and "train_file" not in tree:
        data["train"] = "data/train.json"
    stated = "validation" in data or "validation_file" in tree or "split" in data
    if not stated and (folder / "data" / "validation.json").is_file():
        data["validation"] = "data/validation.json"
    tree["data"] = data


def resolve_path(value: Any, folder: Path, key: str) -> Any:
    """An absolute path where `value` is one; a hub name stays as it is."""
    if not isinstance(value, str) or value in ("", "minilm"):
        return value
    try:
        path = (folder / Path(value).expanduser()).resolve()
        exists = path.exists()
    except (OSError, RuntimeError, ValueError):  # longer than a file name may be, ~ of an unknown user, a zero byte
        return value
    is_path = (
        key in FOLDERS
        or exists
        or Path(value).suffix.lower() in FILE_SUFFIXES
        or value.startswith((".", "~", "/", "\\"))
        or Path(value).is_absolute()
    )
    return str(path) if is_path else value


def _missing_recipe(recipe: Path) -> Problem:
    folder = recipe.parent
    near = difflib.get_close_matches(recipe.name, [path.name for path in folder.glob("*.y*ml")], n=1)
    fix = (
        f"did you mean {folder / near[0]}?" if near else "give the path of a recipe, for example recipes/sms_spam.yaml"
    )
    return Problem(str(recipe), "no such recipe", fix)


def to_yaml(config: RunConfig) -> str:
    """The tree, complete, as YAML that `load_config` reads back to an equal tree."""
    return yaml.safe_dump(config_tree(config), allow_unicode=True, sort_keys=False)


def config_tree(config: RunConfig) -> dict[str, Any]:
    """The tree as plain values, complete but for keys that have no effect under the chosen method, and `adapters` where
    there are none."""
    tree = config.model_dump(mode="json") | {"adapter": config.adapter.effective}
    return {name: value for name, value in tree.items() if name != "adapters" or value is not None}
