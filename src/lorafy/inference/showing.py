"""Pictures shown to a model that is asked: named by the user, put into the question, looked at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..data.pictures import look_at
from ..encoding.conversations import ConversationEncoder
from ..pictures.placing import WRITTEN_MARK, counted, place_pictures
from ..pictures.references import Place, pictures_of
from ..types import DataError, Message, Picture, Problem

Shown = str | Path | Picture
"""A picture as a user names it: by its path (or file or data URL), or as a Picture."""


def named_pictures(shown: Sequence[Shown], where: str) -> list[Picture]:
    """The pictures, of which none is opened. Raises DataError with everything that names none, or something else."""
    found: list[Picture] = []
    problems: list[Problem] = []
    for number, one in enumerate(shown, start=1):
        try:
            found += _named(one, Place(where, f"picture {number}"))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return found


def _named(shown: Shown, place: Place) -> list[Picture]:
    if isinstance(shown, Picture):
        return [shown]
    if isinstance(shown, Path):
        return [Picture(str(shown), path=str(shown))]
    pictures = pictures_of(shown, place)
    if not pictures:
        raise place.wrong("names no picture", "give the path of a picture")
    return list(pictures)


def user_turn(text: str, shown: Sequence[Shown] = (), where: str = "pictures") -> Message:
    """A question with pictures, none of them opened: each where <image> stands in the text, without marks before it.

    where: what names the pictures, for messages. Raises DataError where marks and pictures are not as many.
    """
    pictures, marks = named_pictures(shown, where), text.count(WRITTEN_MARK)
    if not pictures:
        return Message("user", text)
    if marks not in (0, len(pictures)):
        counts = f"{counted(marks, f'mark {WRITTEN_MARK}')} in the question, {counted(len(pictures), 'picture')}"
        fix = f"write {WRITTEN_MARK} once for each picture, or not at all: then they stand before the question"
        raise DataError(Problem(where, counts, fix))
    return place_pictures([("user", [text])], pictures, Place(where, "the question"))[0]


def looked_at(shown: Sequence[Shown], where: str) -> list[Picture]:
    """The pictures that a user names, looked at; relative paths begin at the current folder. Raises DataError with all
    that cannot be used."""
    return look_at(named_pictures(shown, where), Path.cwd())


def all_pictures(messages: Sequence[Message]) -> list[Picture]:
    """What the messages show, in order."""
    return [picture for message in messages for picture in message.pictures]


def seen(conversations: Sequence[Sequence[Message]], folder: Path | None = None) -> list[list[Message]]:
    """The conversations, their pictures looked at, unless somebody did before. folder: of relative paths; default:
    the current one.

    Raises DataError with every picture that cannot be used.
    """
    new = [picture for messages in conversations for picture in all_pictures(messages) if not picture.sha256]
    looks = dict(zip(map(id, new), look_at(new, folder or Path.cwd()), strict=True))

    def look(message: Message) -> Message:
        return replace(message, pictures=tuple(looks.get(id(picture), picture) for picture in message.pictures))

    return [[look(message) if message.pictures else message for message in messages] for messages in conversations]


def shown_to(encoder: ConversationEncoder, conversations: Sequence[Sequence[Message]]) -> list[list[Message]]:
    """The conversations, ready to be asked: pictures looked at. Nothing is, where the model sees none: it says so.

    Raises DataError with every picture that cannot be used; with every mark <image> that no picture is meant by, which
    a model that sees would read as text.
    """
    if not encoder.sees:
        return [list(messages) for messages in conversations]
    problems = []
    for number, messages in enumerate(conversations, start=1):
        marks = sum(message.content.count(WRITTEN_MARK) for message in messages if message.role == "user")
        if marks:
            pictures = len(all_pictures(messages))
            elsewhere = " with places of their own" if pictures else ""
            message = f"{counted(marks, f'mark {WRITTEN_MARK}')}, {counted(pictures, 'picture')}{elsewhere}"
            problems.append(Problem(f"prompt {number}", message, "show a picture there, or take the mark out"))
    if problems:
        raise DataError(problems)
    return seen(conversations)
