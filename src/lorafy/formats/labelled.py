"""A text (or a pair of texts) with a label."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ..config.schema import Columns
from ..types import DataError, Example, Problem

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


def resolve_columns(names: Sequence[str], config: Columns, where: str, *, labelled: bool = True) -> Columns:
    """Which column plays which part: the recipe's, else the usual names in any letter case.

    Raises DataError naming the columns that are there.
    """
    problems: list[Problem] = []
    by_lower = {name.lower(): name for name in names}

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
        problems.append(Problem(f"data.columns.{part}", message, f"name it: data.columns.{part}=..."))
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
    if labelled:
        label = given("label", config.label) if config.label is not None else usual("label", USUAL_LABEL)
    if problems:
        raise DataError(problems)
    return Columns(text=text, text_pair=text_pair, label=label)


def parse(
    record: Mapping[str, Any], columns: Columns, source: str, row: int, label_names: Mapping[str, list[str]]
) -> Example:
    """One record as an Example. A label that is absent, empty or -1 among class indices becomes None."""
    label = None if columns.label is None else value_at(record, str(columns.label))
    names = label_names.get(str(columns.label))
    if names is not None:
        label = names[label] if isinstance(label, int) and 0 <= label < len(names) else None
    return Example(
        text=_as_text(value_at(record, str(columns.text))),
        text_pair=None if columns.text_pair is None else _as_text(value_at(record, str(columns.text_pair))),
        label=label_text(label),
        source=source,
        row=row,
    )


def value_at(record: Any, path: str) -> Any:
    """The value at a dotted path; a list on the way gives its first item. None where the path ends early."""
    if isinstance(record, Mapping) and path in record:
        return record[path]
    value = record
    for key in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(key)
        if isinstance(value, list):
            value = value[0] if value else None
    return value


def label_text(value: Any) -> str | None:
    """A label's one spelling: 1, 1.0 and "1" are the same label; -1 says that the label is not public (GLUE)."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if value != value:  # NaN is how data frames write a missing cell
            return None
        value = int(value) if value.is_integer() else value
    text = str(value).strip()
    return None if text in ("", "-1") else text


def _as_text(value: Any) -> str:
    return "" if value is None or value != value else str(value)
