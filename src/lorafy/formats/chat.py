"""A list of turns: {role, content} as in OpenAI's files, or {from, value} as in ShareGPT's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..config.schema import Columns
from ..pictures.placing import Next, Piece, Turn, place_pictures
from ..pictures.references import Place, pictures_of
from ..types import Conversation, DataError, Message, Problem
from . import ColumnSearch, as_text, cell, filled, pictures_in, value_at

PRECEDENCE = 10
USUAL_MESSAGES = ("messages", "conversations", "conversation", "dialog")
ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
WHERE = "data.columns.messages"
SHAPE = 'write [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]'
ORDER = "a system turn may come first; then user and assistant take turns, and assistant is last"
TEXTS = ("text", "input_text", "output_text")
PICTURES = {
    "image": ("image", "url", "path", "base64", "bytes"),
    "image_url": ("image_url",),
    "input_image": ("image_url",),
}
"""Types of parts that are pictures, and the keys that may say which one."""
MEDIA = {"video": "videos", "video_url": "videos", "audio": "sound", "audio_url": "sound", "input_audio": "sound"}


def recognises(names: Sequence[str], config: Columns) -> bool:
    """Whether there is a column of turns, named in the recipe or by its usual names."""
    return config.messages is not None or any(name.lower() in USUAL_MESSAGES for name in names)


def resolve_columns(names: Sequence[str], config: Columns, where: str, *, answered: bool = True) -> Columns:
    """The recipe's columns, else the usual names in any letter case.

    `completion` of the result is the column of turns again where the answer in it is wanted, else None: `parse` then
    leaves a last answer away, as the other formats do. Raises DataError naming the columns that are there.
    """
    search = ColumnSearch(names, where)
    messages = search.given("messages", config.messages) or search.usual("messages", USUAL_MESSAGES)
    system = search.given("system", config.system) or search.by_lower.get("system")
    images = search.images(config.images, messages, system)
    search.finish(messages=messages, system=system)
    return Columns(messages=messages, system=system, completion=messages if answered else None, images=images)


def parse(
    record: Mapping[str, Any], columns: Columns, source: str, row: int, label_names: Mapping[str, list[str]]
) -> Conversation:
    """One record as its messages. A content of null becomes ""; an empty system message is none.

    Raises DataError where the turns are no such list, user and assistant do not take turns, or pictures and the marks
    for them do not match.
    """
    return of_turns(_turns(record, columns, row), record, columns, source, row)


def of_turns(said: Sequence[Any], record: Mapping[str, Any], columns: Columns, source: str, row: int) -> Conversation:
    """The conversation of a list of turns, with the record's pictures and system message. Raises DataError as `parse`
    does."""
    turns = [_turn(turn, number, row) for number, turn in enumerate(said, start=1)]
    _check_order([role for role, _ in turns], row)
    messages = place_pictures(turns, pictures_in(record, columns, row), Place(WHERE, f"row {row}"))
    own = messages.pop(0).content if messages[0].role == "system" else ""
    column = "" if columns.system is None else filled(cell(record, str(columns.system), "system", row))
    if own.strip() and column and own != column:
        message = f"a system turn beside another system message in '{columns.system}'"
        raise _wrong(message, row, "keep one of them")
    system = column or filled(own)
    if columns.completion is None and messages[-1].role == "assistant":
        messages.pop()
    elif columns.completion is not None and messages[-1].role == "user":
        raise _wrong("the last turn is a question without an answer", row, "add the answer, or remove the question")
    return Conversation((Message("system", system), *messages) if system else tuple(messages), source, row)


def _turns(record: Mapping[str, Any], columns: Columns, row: int) -> list[Any]:
    """The list as it is, or out of a JSON string, which is how csv and many parquet files hold it."""
    column = str(columns.messages)
    turns = value_at(record, column, whole=True)
    if isinstance(turns, str):
        try:
            turns = json.loads(turns) if turns.strip() else None
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise _wrong(f"'{column}' holds broken json: {reason}", row, SHAPE) from error
    if not turns or turns != turns:  # NaN is how data frames write a missing cell
        raise _wrong(f"'{column}' holds no turns", row, "remove the row")
    if not isinstance(turns, list):
        raise _wrong(f"'{column}' holds no list of turns", row, SHAPE)
    return turns


def _turn(turn: Any, number: int, row: int) -> Turn:
    # Parquet gives each object all the keys of all of them, null where it had none.
    speaker = _first_filled(turn, "role", "from") if isinstance(turn, Mapping) else None
    if speaker is None:
        raise _wrong(f"turn {number} has no role", row, SHAPE)
    role = ROLES.get(str(speaker).lower())
    if role is None:
        raise _wrong(f"turn {number} is '{speaker}', not system, user or assistant", row, "remove such conversations")
    content = _first_filled(turn, "content", "value")
    if isinstance(content, list):
        return role, [_part(part, role, number, row) for part in content]
    if isinstance(content, Mapping | bytes):
        raise _wrong(f"turn {number} holds an object or bytes, not text", row, SHAPE)
    return role, [as_text(content)]


def _first_filled(turn: Mapping[str, Any], *keys: str) -> Any:
    return next((turn[key] for key in keys if turn.get(key) is not None), None)


def _part(part: Any, role: str, number: int, row: int) -> Piece:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in MEDIA:
        fix = f"lorafy learns from texts and still pictures, not from {MEDIA[kind]} yet: take such rows out"
        raise _wrong(f"turn {number} holds a part of the type '{kind}'", row, fix)
    if kind in PICTURES:
        if role != "user":
            message = f"turn {number} is '{role}' and holds a part of the type '{kind}'"
            raise _wrong(message, row, "pictures stand in questions: a model reads them, and answers in text")
        return _shown(part, PICTURES[kind], number, row)
    if kind not in TEXTS or not isinstance(part.get("text"), str):
        raise _wrong(f"turn {number} holds a part that is no text", row, 'write {"type": "text", "text": ...}')
    return part["text"]


def _shown(part: Mapping[str, Any], keys: Sequence[str], number: int, row: int) -> Piece:
    """The part's own picture, or the place of the column's next."""
    place = Place(WHERE, f"turn {number}, row {row}")
    if part.get("file_id") is not None:
        raise place.wrong("a file_id is a file at OpenAI", "give the picture's path")
    # Of its keys those alone: parquet gives each part all the keys of all of them.
    pictures = pictures_of({key: part.get(key) for key in keys}, place)
    return pictures[0] if pictures else Next.PART


def _check_order(roles: Sequence[str], row: int) -> None:
    before = None
    for number, role in enumerate(roles, start=1):
        expected = {None: ("system", "user"), "user": ("assistant",)}.get(before, ("user",))
        if role not in expected:
            place = "at the start" if before is None else f"after '{before}'"
            raise _wrong(f"turn {number} is '{role}' {place}", row, ORDER)
        before = role
    if before == "system":
        raise _wrong("there is a system turn and no other", row, ORDER)


def _wrong(message: str, row: int, fix: str) -> DataError:
    return DataError(Problem(WHERE, f"{message} (row {row})", fix))
