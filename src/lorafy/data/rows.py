"""Rows that cannot be learned from, named for the user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..types import Problem


def rows_without(split: str, rows: Sequence[Any], total: int, what: str) -> Problem:
    """Names the first rows that lack something."""
    shown = ", ".join(str(example.row) for example in rows[:5]) + (", ..." if len(rows) > 5 else "")
    message = f"{len(rows):,} of {total:,} rows without {what} in {rows[0].source}: row {shown}"
    return Problem(f"data.{split}", message, "fill them in or remove them")
