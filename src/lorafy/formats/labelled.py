"""A text (or a pair of texts) with a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..config.schema import Columns
from ..types import Example
from . import ColumnSearch, as_text, cell, value_at

PRECEDENCE = 30
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
    """Whether there is a column of labels, named in the recipe or by its usual names."""
    return config.label is not None or any(name.lower() in USUAL_LABEL for name in names)


def resolve_columns(names: Sequence[str], config: Columns, where: str, *, answered: bool = True) -> Columns:
    """Which column plays which part: the recipe's, else the usual names in any letter case.

    Raises DataError naming the columns that are there.
    """
    search = ColumnSearch(names, where)
    text, text_pair = search.given("text", config.text), search.given("text_pair", config.text_pair)
    if text is None:
        pair = next((pair for pair in USUAL_PAIRS if all(name in search.by_lower for name in pair)), None)
        if pair and text_pair is None:
            text, text_pair = search.by_lower[pair[0]], search.by_lower[pair[1]]
        else:
            text = search.usual("text", USUAL_TEXT)
    label = None
    if answered:
        if isinstance(config.label, list):
            several = [search.given("label", name) for name in config.label]
            search.finish(text=text, text_pair=text_pair, **{f"label {name}": name for name in several})
            return Columns(text=text, text_pair=text_pair, label=config.label)
        label = search.given("label", config.label) or search.usual("label", USUAL_LABEL)
    search.finish(text=text, text_pair=text_pair, label=label)
    return Columns(text=text, text_pair=text_pair, label=label)


def parse(
    record: Mapping[str, Any], columns: Columns, source: str, row: int, label_names: Mapping[str, list[str]]
) -> Example:
    """One record as an Example, its label as the file has it; of several columns, a mapping by their names. One that is
    no index of a class (GLUE's -1) becomes None.

    Raises DataError where the text or the label is neither a text nor a number.
    """
    label: Any
    if isinstance(columns.label, list):
        label = {name: cell(record, name, "label", row) for name in columns.label}
    else:
        label = None if columns.label is None else _label_cell(record, str(columns.label), row)
        names = label_names.get(str(columns.label))
        if names is not None:
            label = [_named(one, names) for one in label] if isinstance(label, list) else _named(label, names)
    text_pair = None if columns.text_pair is None else cell(record, str(columns.text_pair), "text_pair", row)
    return Example(
        text=as_text(cell(record, str(columns.text), "text", row)),
        text_pair=None if columns.text_pair is None else as_text(text_pair),
        label=label,
        source=source,
        row=row,
    )


def _label_cell(record: Mapping[str, Any], column: str, row: int) -> Any:
    """The label as the file has it: a text, a number, None, or a list of such."""
    value = value_at(record, column, whole=True)
    if isinstance(value, list) and not any(isinstance(one, list | Mapping | bytes) for one in value):
        return value
    return cell(record, column, "label", row)


def _named(index: Any, names: Sequence[str]) -> str | None:
    """The name of a class index; None for what is no index of a class, as GLUE's -1."""
    return names[index] if isinstance(index, int) and 0 <= index < len(names) else None


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
