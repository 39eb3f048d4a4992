"""YAML + overrides -> RunConfig. All mistakes are collected and raised together, with the nearest known name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..types import ConfigError, Problem
from .schema import RunConfig

FILE_SUFFIXES = {".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet"}


def load_config(recipe: Path | str, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a recipe. Paths written in it are relative to its folder, paths in overrides to the current one.

    Raises ConfigError with every mistake found, in the file and in the overrides.
    """
    recipe = Path(recipe)
    tree = read_recipe(recipe)
    problems: list[Problem] = []
    _resolve_paths(tree, recipe.resolve().parent)
    for override in overrides:
        problem = apply_override(tree, override)
        if problem:
            problems.append(problem)
    return parse_config(tree, str(recipe), problems)


def read_recipe(recipe: Path) -> dict[str, Any]:
    if not recipe.is_file():
        raise ConfigError(_missing_recipe(recipe))
    try:
        tree = yaml.safe_load(recipe.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(Problem(str(recipe), "not UTF-8", "save the recipe as UTF-8")) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{recipe}, line {mark.line + 1}" if mark else str(recipe)
        reason = getattr(error, "problem", None) or str(error)
        raise ConfigError(
            Problem(where, f"not valid YAML: {reason}", "check indentation, colons and quotes")
        ) from error
    if not isinstance(tree, dict):
        raise ConfigError(Problem(str(recipe), "should hold sections such as model: and data:", "see recipes/"))
    return tree


def parse_config(tree: Mapping[str, Any], where: str, problems: Sequence[Problem] = ()) -> RunConfig:
    """Validates a tree of plain values. `problems` found earlier are raised with the new ones."""
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError([*problems, *(_problem(detail, where) for detail in error.errors())]) from error
    if problems:
        raise ConfigError(problems)
    return config


def apply_override(tree: dict[str, Any], override: str) -> Problem | None:
    """Sets `section.key=value` in the tree; the value is YAML, so numbers, lists and null work."""
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        return Problem(override, "an override is written section.key=value", "for example train.num_epochs=1")
    try:
        value = yaml.safe_load(text) if text else None
    except yaml.YAMLError:
        value = text
    if (keys[0] == "data" and keys[-1] in ("train", "validation", "test")) or name in ("model.path", "run.output_dir"):
        value = resolve_path(value, Path.cwd(), keys[-1])
    node: Any = tree
    for key in keys[:-1]:
        if node.get(key) is None:
            node[key] = {}
        node = node[key]
        if not isinstance(node, dict):
            return Problem(override, f"{key} holds a value, not a section")
    node[keys[-1]] = value
    return None


def _resolve_paths(tree: dict[str, Any], folder: Path) -> None:
    for section, keys in (
        ("data", ("train", "validation", "test")),
        ("model", ("path",)),
        ("run", ("output_dir",)),
    ):
        node = tree.get(section)
        if isinstance(node, dict):
            for key in keys:
                if key in node:
                    node[key] = resolve_path(node[key], folder, key)


def resolve_path(value: Any, folder: Path, key: str) -> Any:
    """An absolute path where `value` is one; a hub name stays as it is."""
    if not isinstance(value, str) or value == "minilm":
        return value
    path = (folder / Path(value).expanduser()).resolve()
    is_path = (
        key == "output_dir"
        or path.exists()
        or Path(value).suffix.lower() in FILE_SUFFIXES
        or value.startswith((".", "~", "/", "\\"))
        or Path(value).is_absolute()
    )
    return str(path) if is_path else value


def _problem(detail: ErrorDetails, where: str) -> Problem:
    location = [part for part in detail["loc"] if not (isinstance(part, str) and _is_union_branch(part))]
    path = ".".join(str(part) for part in location) or "recipe"
    message, value = detail["msg"], detail.get("input")
    if detail["type"] == "extra_forbidden":
        return Problem(path, f"unknown key in {where}", _nearest(location))
    if detail["type"] == "missing":
        return Problem(path, f"missing in {where}", "add it; every other key has a default")
    message = re.sub(r"^Value error, ", "", message)
    if detail["type"] == "value_error" and isinstance(value, (dict, BaseModel)):
        return Problem(path, message)
    return Problem(path, f"{message[0].lower()}{message[1:]}, but it is {value!r} in {where}")


def _is_union_branch(part: str) -> bool:
    return bool(re.match(r"(constrained-|literal\[|function-|list\[|int$|float$|str$)", part))


def _nearest(location: Sequence[Any]) -> str:
    """What the user may have meant: the nearest key here, or the same name in another section."""
    *parents, wrong = [str(part) for part in location]
    known = list(_keys_below(RunConfig, parents))
    match = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    if match:
        return f"did you mean {'.'.join([*parents, match[0]])}?"
    leaves = {path.rpartition(".")[2]: path for path in all_keys()}
    elsewhere = difflib.get_close_matches(wrong, leaves, n=1, cutoff=0.6)
    if elsewhere:
        return f"did you mean {leaves[elsewhere[0]]}?"
    return f"known here: {', '.join(known)}"


def _keys_below(model: type[BaseModel], parents: Sequence[str]) -> Iterator[str]:
    for name in parents:
        annotation = model.model_fields[name].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        model = annotation
    yield from model.model_fields


def all_keys(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the tree, sections left out."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from all_keys(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


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
    """The tree as plain values, complete but for keys that have no effect under the chosen method."""
    tree = config.model_dump(mode="json")
    if config.adapter.method != "lora":
        tree["adapter"] = {"method": config.adapter.method}
    if config.data.validation:
        del tree["data"]["split"]
    return tree
