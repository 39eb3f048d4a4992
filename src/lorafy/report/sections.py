"""Parts of what is shown of a result, described once: the page draws them as HTML, the terminal as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """A column's head. kind: `number`, `name`, `text` (long), `soft`, or `meaning` (an explanation, which a terminal
    leaves out)."""

    title: str
    kind: str = "text"


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table. under: a smaller line below the text. best: whether it is to be marked."""

    text: str
    under: str = ""
    best: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table. note: beside the title. below: a sentence behind the table. most_on_terminal: with more rows the
    terminal leaves the table out."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    below: str = ""
    most_on_terminal: int = 30


@dataclass(frozen=True, slots=True)
class Said:
    """One column below a prompt. `kind` is reference, base or tuned."""

    who: str
    kind: str
    text: str
    ended: bool = True


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture of a prompt: its name, and itself made small, as a data URL."""

    name: str
    thumbnail: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt with its pictures, and what was said to it."""

    prompt: str
    columns: Sequence[Said]
    row: int | None = None
    pictures: Sequence[Shown] = ()


@dataclass(frozen=True, slots=True)
class Samples:
    """Prompts with answers, side by side."""

    samples: Sequence[Sample]


Section = Table | Samples
