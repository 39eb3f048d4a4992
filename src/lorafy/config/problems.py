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
from .schema import RunConfig

FIRST_KEYS = {"model": "path", "data": "train", "data.columns": "text", "adapter": "method"}
"""What somebody means who writes a value where a section belongs, such as `model: minilm`."""

OTHER_TOOLS = {
    "batch": "train.batch_size",
    "epochs": "train.num_epochs",
    "label_column": "data.columns.label",
    "lora_alpha": "adapter.alpha",
    "lora_dropout": "adapter.dropout",
    "lora_r": "adapter.r",
    "lora_rank": "adapter.r",
    "lr": "train.learning_rate",
    "lr_scheduler_type": "train.schedule",
    "max_seq_length": "data.max_length",
    "model_name": "model.path",
    "model_name_or_path": "model.path",
    "num_train_epochs": "train.num_epochs",
    "per_device_train_batch_size": "train.batch_size",
    "rank": "adapter.r",
    "target_modules": "adapter.target_modules",
    "text_column": "data.columns.text",
    "train_file": "data.train",
    "validation_file": "data.validation",
    "warmup_ratio": "train.warmup",
    "warmup_steps": "train.warmup",
}
"""What other tools call our keys."""


def to_problems(details: Sequence[ErrorDetails], recipe: str, overrides: Sequence[str] = ()) -> list[Problem]:
    """One problem a key: the branches of a union report one error each, and are told as one."""
    by_path: dict[str, list[ErrorDetails]] = defaultdict(list)
    for detail in details:
        by_path[".".join(location(detail)) or "recipe"].append(detail)
    problems = []
    for path, errors in by_path.items():
        if any(other.startswith(f"{path}.") for other in by_path) and not is_section_rule(errors[0]):
            continue  # the branch of a union that fits better says which item is wrong
        where = _place(path, recipe, overrides)
        if is_section_rule(errors[0]):
            problems += [_section_problem(path, line) for line in _plain(errors[0]).split("\n")]
        elif errors[0]["type"] == "extra_forbidden":
            problems.append(Problem(path, f"unknown key in {where}", _nearest(path.split("."))))
        elif errors[0]["type"] == "missing":
            problems.append(Problem(path, f"missing in {where}", _how_to_add(path)))
        else:
            problems.append(_value_problem(path, errors, where))
    return problems


def location(detail: ErrorDetails) -> list[str]:
    """The keys, without the names that pydantic gives to the branches of a union."""
    return [str(part) for part in detail["loc"] if not (isinstance(part, str) and _is_union_branch(part))]


def is_section_rule(detail: ErrorDetails) -> bool:
    """Raised by a section's own rule, which looks at several keys (schema._refuse)."""
    return detail["type"] == "value_error" and isinstance(detail["input"], dict | BaseModel)


def all_keys(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the tree, sections left out."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from all_keys(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _place(path: str, recipe: str, overrides: Sequence[str]) -> str:
    for override in reversed(overrides):
        name = override.partition("=")[0].strip()
        if name == path or name.startswith(f"{path}.") or path.startswith(f"{name}."):
            return f"the override {override.strip()}"
    return recipe


def _section_problem(section: str, line: str) -> Problem:
    key, _, message = line.partition(": ")
    message, _, fix = message.partition("; ")
    return Problem(f"{section}.{key}", message, fix or None)


def _value_problem(path: str, errors: Sequence[ErrorDetails], where: str) -> Problem:
    value = errors[0]["input"]
    kinds = {error["type"] for error in errors}
    if kinds & {"model_type", "dict_type"}:
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
    return Problem(path, f"{message}, but it is {_shown(value)} in {where}", fix)


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
    return bool(re.match(r"(constrained-|literal\[|function-|list\[|int$|float$|str$)", part))


def _nearest(location: Sequence[str]) -> str:
    """What the user may have meant: this name in another section, the nearest key here, or the nearest of all."""
    *parents, wrong = location
    leaves = {path.rpartition(".")[2]: path for path in all_keys()} | OTHER_TOOLS
    known = list(_keys_below(RunConfig, parents))
    here = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    if wrong not in leaves and here:
        return f"did you mean {'.'.join([*parents, here[0]])}?"
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
