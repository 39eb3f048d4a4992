"""pydantic's errors in the user's words: the dotted key, the value, where it stands, and what to do."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from ..types import Problem
from .flat import FLAT_NAMES, override_name
from .schema import RunConfig

FIRST_KEYS = {"model": "path", "data": "train", "data.columns": "text", "adapter": "method"}
"""For each section, the key that is meant where a value stands in the section's place: `model: minilm`."""

OTHER_TOOLS = {
    "batch": "train.batch_size",
    "epochs": "train.num_epochs",
    "label_column": "data.columns.label",
    "lora_rank": "adapter.r",
    "lr": "train.learning_rate",
    "model_name": "model.path",
    "rank": "adapter.r",
    "text_column": "data.columns.text",
}
"""What other tools call our keys, besides the flat names that a recipe may use (flat.py)."""


def to_problems(
    details: Sequence[ErrorDetails], recipe: str, overrides: Sequence[str], spelt: Mapping[str, str]
) -> list[Problem]:
    """One problem a key: the branches of a union report one error each, and are told as one.

    `spelt` has the flat name for each key that the user gave by one; such a key is told as `lora_r (adapter.r)`.
    """
    by_path: dict[str, list[ErrorDetails]] = defaultdict(list)
    for detail in details:
        by_path[".".join(location(detail)) or "recipe"].append(detail)
    problems = []
    for path, errors in by_path.items():
        if any(other.startswith(f"{path}.") for other in by_path) and not is_section_rule(errors[0]):
            continue  # the branch of a union that fits better says which item is wrong
        if is_section_rule(errors[0]):
            problems += [_section_problem(path, line, spelt) for line in _plain(errors[0]).split("\n")]
            continue
        where = _place(path, recipe, overrides, _flat_name(path, spelt))
        if errors[0]["type"] == "extra_forbidden":
            problems.append(Problem(path, f"unknown key in {where}", _nearest(path.split("."))))
        elif errors[0]["type"] == "missing":
            problems.append(Problem(path, f"missing in {where}", _how_to_add(path)))
        else:
            problems.append(_value_problem(path, errors, where, spelt))
    return problems


def _flat_name(path: str, spelt: Mapping[str, str]) -> str | None:
    """The flat name that gave this key, or the list that this item stands in."""
    return next((name for key, name in spelt.items() if f"{path}.".startswith(f"{key}.")), None)


def _shown_key(path: str, spelt: Mapping[str, str]) -> str:
    name = _flat_name(path, spelt)
    return f"{name} ({path})" if name else path


def location(detail: ErrorDetails) -> list[str]:
    """The keys, without the names that pydantic gives to the branches of a union."""
    return [str(part) for part in detail["loc"] if not (isinstance(part, str) and _is_union_branch(part))]


def is_section_rule(detail: ErrorDetails) -> bool:
    """Whether a section's own rule, which looks at several keys, raised this error (schema._refuse)."""
    return detail["type"] == "value_error" and isinstance(detail["input"], dict | BaseModel)


def all_keys(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the tree, sections left out."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from all_keys(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _place(path: str, recipe: str, overrides: Sequence[str], flat_name: str | None) -> str:
    for override in reversed(overrides):
        name = override_name(override)
        if name in (path, flat_name) or name.startswith(f"{path}.") or path.startswith(f"{name}."):
            return f"the override {override.strip()}"
    return recipe


def _section_problem(section: str, line: str, spelt: Mapping[str, str]) -> Problem:
    key, _, message = line.partition(": ")
    message, _, fix = message.partition("; ")
    return Problem(_shown_key(f"{section}.{key}", spelt), message, fix or None)


def _value_problem(path: str, errors: Sequence[ErrorDetails], where: str, spelt: Mapping[str, str]) -> Problem:
    value = errors[0]["input"]
    kinds = {error["type"] for error in errors}
    if kinds <= {"model_type", "dict_type"}:
        return _no_section(path, value, where)
    messages = list(dict.fromkeys(_plain(error) for error in errors))
    message = " or ".join([messages[0], *(text.removeprefix("should be ") for text in messages[1:])])
    fix = None
    if "list_type" in kinds and isinstance(value, str):
        items = ", ".join(item.strip() for item in value.split(","))
        fix = f"a list is written [{items}]"
    elif kinds == {"string_type"} and value is not None and not isinstance(value, list | Mapping):
        example = '"yes"' if isinstance(value, bool) else f'"{value}"'
        fix = f"YAML reads this as no text: write it in quotes, {example}"
    return Problem(_shown_key(path, spelt), f"{message}, but it is {_shown(value)} in {where}", fix)


def _no_section(path: str, value: Any, where: str) -> Problem:
    """A value, or nothing, where a section belongs."""
    if value is None:
        remove = "remove the line, or write keys below it"
        return Problem(path, f"an empty section in {where}", _how_to_add(path) if path in ("model", "data") else remove)
    fix = None
    if isinstance(value, str) and path in FIRST_KEYS:
        fix = f"write {path.rpartition('.')[2]}: {{{FIRST_KEYS[path]}: {value}}}"
    return Problem(path, f"should be a section with keys below it, but it is {_shown(value)} in {where}", fix)


def _plain(detail: ErrorDetails) -> str:
    if detail["type"] == "string_pattern_mismatch":
        return "should be letters, digits, dots, - and _, and begin with a letter or digit"
    if detail["type"] == "string_too_short":
        return "should not be empty"
    message = re.sub(r"^(Value error, |Input )", "", detail["msg"])
    message = re.sub(r", unable to parse.*| after validation, not \d+", "", message)
    return f"{message[0].lower()}{message[1:]}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _how_to_add(path: str) -> str:
    examples = {
        "data": "data: {train: FILE}",
        "data.train": "train: FILE",
        "model": "model: {path: minilm}",
        "model.path": "path: minilm",
    }
    return f"add it, such as {examples[path]}" if path in examples else "add it"


def _is_union_branch(part: str) -> bool:
    return bool(re.match(r"(constrained-|literal\[|function-|list\[|dict\[|int$|float$|str$)", part))


def known_names(parents: Sequence[str] = ()) -> dict[str, str]:
    """What somebody may write for a key, and what to write in its place. At the top, flat names are right."""
    leaves = {path.rpartition(".")[2]: path for path in all_keys()}
    flat = {name: flat.keys[0] if parents else name for name, flat in FLAT_NAMES.items()}
    return leaves | OTHER_TOOLS | flat


def _nearest(location: Sequence[str]) -> str:
    """What the user may have meant: this name in another section, the nearest key here, or the nearest of all."""
    *parents, wrong = location
    names = known_names(parents)
    known = list(_keys_below(RunConfig, parents))
    if not parents:
        names |= {section: section for section in known}
    here = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    if parents and wrong not in names and here:
        return f"did you mean {'.'.join([*parents, here[0]])}?"
    elsewhere = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    if elsewhere:
        return f"did you mean {names[elsewhere[0]]}?"
    return f"known here: {', '.join(known)}{'' if parents else ', and the flat names of docs/config.md'}"


def _keys_below(model: type[BaseModel], parents: Sequence[str]) -> Iterator[str]:
    for name in parents:
        annotation = model.model_fields[name].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        model = annotation
    yield from model.model_fields
