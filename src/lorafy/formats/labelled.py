"""A text (or a pair of texts) with a label."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ..config.schema import Columns
from ..types import DataError, Example, Problem

TASK = "classification"
USUAL_TEXT = (
    "text",
    "sentence",
    "message",
    "content",
    "review",
    "title",
    "sms",
    "question",
    "description",
    "v2",
)
USUAL_PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text", "text_pair"),
    ("text_a", "text_b"),
)
USUAL_LABEL = ("label", "labels", "category", "class", "target", "sentiment", "v1")


def recognises(names: Sequence[str], config: Columns) -> bool:
    """A column of labels, named in the recipe or by its usual names."""
    return config.label is not None or any(name.lower() in USUAL_LABEL for name in names)


def resolve_columns(names: Sequence[str], config: Columns, where: str, *, answered: bool = True) -> Columns:
    """Which column plays which part: the recipe's, else the usual names in any letter case.

    Raises DataError naming the columns that are there.
    """
    problems: list[Problem] = []
    by_lower = {name.lower(): name for name in reversed(names)}

    def given(part: str, wanted: str | int) -> str:
        name = str(wanted)
        if name in names or name.split(".")[0] in names:
            return name
        near = difflib.get_close_matches(name, names, n=1)
        fix = f"did you mean {near[0]}?" if near else None
        message = f"no column '{name}' in {where}; it has {', '.join(names)}"
        problems.append(Problem(f"data.columns.{part}", message, fix))
        return name

    def usual(part: str, candidates: Sequence[str]) -> str | None:
        for candidate in candidates:
            if candidate in by_lower:
                return by_lower[candidate]
        message = f"found no column for the {part} in {where}; it has {', '.join(names)}"
        fix = f"name it: data.columns.{part}=NAME; or, in a file without a header line, its position counted from 0"
        problems.append(Problem(f"data.columns.{part}", message, fix))
        return None

    text: str | None
    text_pair = None if config.text_pair is None else given("text_pair", config.text_pair)
    if config.text is not None:
        text = given("text", config.text)
    else:
        pair = next((pair for pair in USUAL_PAIRS if all(name in by_lower for name in pair)), None)
        if pair and text_pair is None:
            text, text_pair = by_lower[pair[0]], by_lower[pair[1]]
        else:
            text = usual("text", USUAL_TEXT)
    label = None
    if answered:
        label = given("label", config.label) if config.label is not None else usual("label", USUAL_LABEL)
    chosen = [name for name in (text, text_pair, label) if name is not None]
    for name in sorted({name for name in chosen if chosen.count(name) > 1}):
        message = f"'{name}' of {where} is taken twice, among text, text_pair and label"
        problems.append(Problem("data.columns", message, f"name another column; it has {', '.join(names)}"))
    if problems:
        raise DataError(problems)
    return Columns(text=text, text_pair=text_pair, label=label)


def parse(
    record: Mapping[str, Any], columns: Columns, source: str, row: int, label_names: Mapping[str, list[str]]
) -> Example:
    """One record as an Example. A label that is absent, empty or no index of a class (GLUE's -1) becomes None.

    Raises DataError where the text or the label is neither a text nor a number.
    """
    label = None if columns.label is None else _cell(record, str(columns.label), "label", row)
    names = label_names.get(str(columns.label))
    if names is not None:
        label = names[label] if isinstance(label, int) and 0 <= label < len(names) else None
    text_pair = None if columns.text_pair is None else _cell(record, str(columns.text_pair), "text_pair", row)
    return Example(
        text=_as_text(_cell(record, str(columns.text), "text", row)),
        text_pair=None if columns.text_pair is None else _as_text(text_pair),
        label=label_text(label),
        source=source,
        row=row,
    )


def _cell(record: Mapping[str, Any], column: str, part: str, row: int) -> Any:
    value = value_at(record, column)
    where = f"data.columns.{part}"
    if isinstance(value, Mapping):
        keys = ", ".join(str(key) for key in value)
        fix = f"name a part of it, such as {where}={column}.{next(iter(value), '...')}"
        raise DataError(Problem(where, f"'{column}' holds an object with the keys {keys} (row {row})", fix))
    if isinstance(value, list | bytes):
        kind = "a list of lists" if isinstance(value, list) else "bytes"
        raise DataError(Problem(where, f"'{column}' holds {kind}, not text (row {row})", "name another column"))
    several = record.get(column)
    if part == "label" and isinstance(several, list) and len(several) > 1:
        message = f"'{column}' holds {len(several)} labels (row {row}): one label a text is learned here"
        raise DataError(Problem(where, message, "keep one label a row"))
    return value


def value_at(record: Any, path: str) -> Any:
    """The value at a dotted path; a list gives its first item. None where the path ends early."""
    value, keys = record, path.split(".")
    if isinstance(record, Mapping) and path in record:
        keys = [path]
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, list):
            value = value[0] if value else None
    return value


def label_text(value: Any) -> str | None:
    """A label's one spelling: 1, 1.0 and "1" are the same label, and so are "ham" and " ham "."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if value != value:  # NaN is how data frames write a missing cell
            return None
        value = int(value) if value.is_integer() else value
    return str(value).strip() or None


def _as_text(value: Any) -> str:
    return "" if value is None or value != value else str(value)
