"""A format that lorafy does not know: one column, `LABEL! text`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorafy.config.schema import Columns
from lorafy.types import Example

PRECEDENCE = 5


def recognises(names: Sequence[str], config: Columns) -> bool:
    return list(names) == ["shouted"]


def resolve_columns(names: Sequence[str], config: Columns, where: str, *, answered: bool = True) -> Columns:
    return Columns(text="shouted")


def parse(
    record: Mapping[str, Any], columns: Columns, source: str, row: int, label_names: Mapping[str, list[str]]
) -> Example:
    label, _, text = record["shouted"].partition("! ")
    return Example(text, label, source, row)
