"""Seam: a raw record becomes an Example or a Conversation. One file a format; what they share stands here."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ..config.schema import Columns
from ..pictures.references import Place, pictures_of
from ..types import DataError, Picture, Problem

USUAL_IMAGES = ("images", "image")
VIDEOS = ("videos", "video")
NO_VIDEOS = "lorafy learns from still pictures, not from videos yet: take such rows out, or save frames as pictures"


class ColumnSearch:
    """Which column of a table plays which part. Mistakes are collected; `finish` raises them all."""

    def __init__(self, names: Sequence[str], where: str):
        self.names, self.where = names, where
        self.by_lower = {name.lower(): name for name in reversed(names)}
        self.problems: list[Problem] = []

    def given(self, part: str, wanted: str | int | None) -> str | None:
        """The recipe's column, a name, a dotted path or a position; None where it names none."""
        if wanted is None:
            return None
        name = str(wanted)
        if name not in self.names and name.split(".")[0] not in self.names:
            near = difflib.get_close_matches(name, self.names, n=1)
            message = f"no column '{name}' in {self.where}; it has {', '.join(self.names)}"
            self.problems.append(Problem(f"data.columns.{part}", message, f"did you mean {near[0]}?" if near else None))
        return name

    def usual(self, part: str, candidates: Sequence[str]) -> str | None:
        """The first of the usual names that is there, in any letter case; None, and a mistake more, where none is."""
        for candidate in candidates:
            if candidate in self.by_lower:
                return self.by_lower[candidate]
        message = f"found no column for the {part} in {self.where}; it has {', '.join(self.names)}"
        fix = f"name it: data.columns.{part}=NAME; or, in a file without a header line, its position counted from 0"
        self.problems.append(Problem(f"data.columns.{part}", message, fix))
        return None

    def images(self, wanted: str | int | None, *used: str | None) -> str | None:
        """The column of pictures: the recipe's, else the one with a usual name that is not `used`; None where there is
        none, and a mistake more where there are two."""
        named = self.given("images", wanted)
        if named is not None:
            if named in used:
                message = f"'{named}' of {self.where} is taken twice, as pictures and as text"
                self.problems.append(Problem("data.columns.images", message, "name another column"))
            return named
        found = [self.by_lower[name] for name in USUAL_IMAGES if name in self.by_lower]
        found = [name for name in found if name not in used]
        if len(found) > 1:
            message = f"{self.where} has two columns of pictures, {' and '.join(found)}"
            self.problems.append(Problem("data.columns.images", message, "name one: data.columns.images=NAME"))
        return found[0] if found else None

    def finish(self, **parts: str | None) -> None:
        """Raises DataError with every mistake; one column for two parts is one too."""
        chosen = [name for name in parts.values() if name is not None]
        for name in sorted({name for name in chosen if chosen.count(name) > 1}):
            *some, last = parts
            message = f"'{name}' of {self.where} is taken twice, among {', '.join(some)} and {last}"
            fix = f"name another column; it has {', '.join(self.names)}"
            self.problems.append(Problem("data.columns", message, fix))
        if self.problems:
            raise DataError(self.problems)


def value_at(record: Any, path: str, *, whole: bool = False) -> Any:
    """The value at a dotted path; a list gives its first item (`whole`: unless it is what the path ends at).

    None where the path ends early.
    """
    value, keys = record, [path] if isinstance(record, Mapping) and path in record else path.split(".")
    for position, key in enumerate(keys, start=1):
        value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, list) and not (whole and position == len(keys)):
            value = value[0] if value else None
    return value


def cell(record: Mapping[str, Any], column: str, part: str, row: int) -> Any:
    """A text, a number or None. Raises DataError for anything else, which would be printed into the data."""
    value = value_at(record, column)
    where = f"data.columns.{part}"
    if isinstance(value, Mapping):
        keys = ", ".join(str(key) for key in value)
        fix = f"name a part of it, such as {where}={column}.{next(iter(value), '...')}"
        raise DataError(Problem(where, f"'{column}' holds an object with the keys {keys} (row {row})", fix))
    if isinstance(value, list | bytes):
        kind = "a list of lists" if isinstance(value, list) else "bytes"
        raise DataError(Problem(where, f"'{column}' holds {kind}, not text (row {row})", "name another column"))
    return value


def pictures_in(record: Mapping[str, Any], columns: Columns, row: int) -> tuple[Picture, ...] | None:
    """The pictures of a row's column; None where the table has no such column.

    Raises DataError for what is no picture, and for videos in a column of their own.
    """
    texts = (columns.prompt, columns.input, columns.completion, columns.system)
    for name, value in record.items():
        # NaN, unequal to itself, is how data frames write a missing cell.
        if str(name).lower() in VIDEOS and value and value == value and name not in texts:
            raise DataError(Problem("data", f"'{name}' holds a video (row {row})", NO_VIDEOS))
    if columns.images is None:
        return None
    value = value_at(record, str(columns.images), whole=True)
    return pictures_of(value, Place("data.columns.images", f"row {row}"))


def as_text(value: Any) -> str:
    """A cell's text: a number is its digits; None and NaN, which is how data frames write a missing cell, are empty."""
    return "" if value is None or value != value else str(value)


def filled(value: Any) -> str:
    """The text as it is, or "" where there is nothing but white space."""
    text = as_text(value)
    return text if text.strip() else ""
