"""Which picture stands where: marks in the questions, parts of a content, and a row's column of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from ..types import PICTURE_MARK, Message, Picture
from .references import Place

WRITTEN_MARK = "<image>"


class Next(Enum):
    """Stands for the next picture of the row's column."""

    MARK = f"mark {WRITTEN_MARK}"
    PART = "part without a picture"


Piece = str | Picture | Next
Turn = tuple[str, list[Piece]]
"""A role, and what it says and shows, in order."""


def place_pictures(turns: Sequence[Turn], given: Sequence[Picture] | None, place: Place) -> list[Message]:
    """The turns as messages, each picture where it belongs. given: the column's pictures; None: there is no column.

    <image> in a user's text stands for the next of the column; without a mark all stand before the first question.
    Raises DataError where they do not match.
    """
    if given is not None:
        turns = [(role, _with_marks(pieces) if role == "user" else pieces) for role, pieces in turns]
    marks = [piece for _, pieces in turns for piece in pieces if isinstance(piece, Next)]
    own = sum(isinstance(piece, Picture) for _, pieces in turns for piece in pieces)
    rest = list(given or ())
    if rest and not marks and not own:
        first = next(number for number, (role, _) in enumerate(turns) if role == "user")
        asked = (turns[first][0], [*rest, *turns[first][1]])
        turns, rest = [*turns[:first], asked, *turns[first + 1 :]], []
    elif len(marks) != len(rest):
        raise _mismatch(marks, own, given, place)
    return [_message(role, pieces, rest, place) for role, pieces in turns]


def as_written(message: Message) -> str:
    """The text with <image> where a picture stands, as people write it in data."""
    return message.content.replace(PICTURE_MARK, WRITTEN_MARK) if message.pictures else message.content


def _with_marks(pieces: Sequence[Piece]) -> list[Piece]:
    found: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str):
            first, *others = piece.split(WRITTEN_MARK)
            found.append(first)
            for text in others:
                found += [Next.MARK, text]
        else:
            found.append(piece)
    return found


def _message(role: str, pieces: Sequence[Piece], rest: list[Picture], place: Place) -> Message:
    """Takes what it shows out of the front of `rest`."""
    pictures = tuple(
        piece if isinstance(piece, Picture) else rest.pop(0) for piece in pieces if not isinstance(piece, str)
    )
    if pictures and any(PICTURE_MARK in piece for piece in pieces if isinstance(piece, str)):
        message = "the text beside a picture holds the character U+FFFC, which stands for pictures"
        raise place.wrong(message, "take it out of the text")
    content = "".join(piece if isinstance(piece, str) else PICTURE_MARK for piece in pieces)
    return Message(role, content, pictures)


def _mismatch(marks: Sequence[Next], own: int, given: Sequence[Picture] | None, place: Place) -> Exception:
    if given is None:
        message = f"{counted(len(marks), Next.PART.value)} and no column of pictures"
        fix = 'write {"type": "image", "image": "PATH"}, or add a column images'
        return place.wrong(message, fix)
    kinds = [kind for kind in Next if kind in marks] or [Next.MARK]
    asked = " and ".join(counted(sum(mark is kind for mark in marks), kind.value) for kind in kinds)
    shown = f"{counted(len(given), 'picture')} in the column of pictures"
    beside = f" beside {counted(own, 'picture')} of parts" if own else ""
    fix = f"write {WRITTEN_MARK} once for each picture of the column, in the questions alone"
    return place.wrong(f"{asked} in the questions, {shown}{beside}", fix)


def counted(number: int, noun: str) -> str:
    """`no picture`, `1 picture`, `2 marks <image>`."""
    if number == 1:
        return f"1 {noun}"
    first, space, others = noun.partition(" ")
    return f"{number or 'no'} {first}{'s' if number else ''}{space}{others}"
