"""Plain text, learned from its first token to its last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..config.schema import Columns
from ..types import Conversation, Message
from . import ColumnSearch, cell, filled

PRECEDENCE = 40
USUAL_TEXT = ("text", "content", "story", "document")


def recognises(names: Sequence[str], config: Columns) -> bool:
    """Whether a text is named in the recipe without a label, or a column has a usual name."""
    if config.text is not None and config.label is None:
        return True
    return any(name.lower() in USUAL_TEXT for name in names)


def resolve_columns(names: Sequence[str], config: Columns, where: str, *, answered: bool = True) -> Columns:
    """The recipe's column, else one with a usual name in any letter case; a text has no answer apart.

    Raises DataError naming the columns that are there.
    """
    search = ColumnSearch(names, where)
    text = search.given("text", config.text) or search.usual("text", USUAL_TEXT)
    search.finish(text=text)
    return Columns(text=text)


def parse(
    record: Mapping[str, Any], columns: Columns, source: str, row: int, label_names: Mapping[str, list[str]]
) -> Conversation:
    """One record as one message that nobody says. An empty text becomes "": the caller counts and names such rows.

    Raises DataError where it is neither a text nor a number.
    """
    text = filled(cell(record, str(columns.text), "text", row))
    return Conversation((Message("text", text),), source, row)
