"""What a cell or a content part names becomes Pictures. Nothing is opened here."""

from __future__ import annotations

import ast
import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, unquote_to_bytes

from ..types import DataError, Picture, Problem

SHAPES = "write a path, a list of paths, {path, bytes}, or data:image/png;base64,..."
DOWNLOAD = "lorafy downloads no pictures while it trains: download them first, and give their paths"
PATH_KEYS = ("path", "url", "image", "image_url")
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
"""A scheme of two letters or more: one letter is a Windows drive."""


class Place(NamedTuple):
    """Where a reference stands: the part of the recipe or of the command line, and the row as it is called."""

    where: str
    called: str

    def wrong(self, message: str, fix: str = SHAPES) -> DataError:
        """The mistake that a reference here is."""
        return DataError(Problem(self.where, f"{message} ({self.called})", fix))


def pictures_of(value: Any, place: Place) -> tuple[Picture, ...]:
    """The pictures that a value names: a path or a data URL, {bytes, path}, bytes, or a list of these.

    A text that is such a list, as csv has it, is one. None, NaN, "" and [] name none. Raises DataError for all else.
    """
    if isinstance(value, str):
        value = _list_in(value)
    several = list(value) if isinstance(value, list | tuple) else [value]
    return tuple(
        picture
        for number, one in enumerate(several, start=1)
        if (picture := _picture(one, place, f"picture {number} of {place.called}")) is not None
    )


def _list_in(text: str) -> Any:
    """The list that a text holds, in JSON or as Python prints it (pandas); else the text: a name may begin with [."""
    if not text.lstrip().startswith("["):
        return text
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(found, list):
            return found
    return text


def _picture(value: Any, place: Place, name: str) -> Picture | None:
    if value is None or value != value:  # NaN is how data frames write a missing cell
        return None
    if isinstance(value, bytes | bytearray):
        return Picture(name, data=bytes(value)) if value else None
    if isinstance(value, str):
        return _named(value, place, name) if value.strip() else None
    if isinstance(value, Mapping):
        return _of_object(value, place, name)
    kind = "a list in the place of one picture" if isinstance(value, list | tuple) else f"{value!r:.40}"
    raise place.wrong(f"{kind} names no picture")


def _of_object(value: Mapping[str, Any], place: Place, name: str) -> Picture | None:
    """Hugging Face's {bytes, path}: where bytes are there, the path is the file's name and no more."""
    found = next((value[key] for key in PATH_KEYS if _given(value.get(key))), None)
    if isinstance(found, Mapping):  # {"image": {"bytes": ..., "path": ...}}
        return _of_object(found, place, name)
    called = found if isinstance(found, str) and not found.lower().startswith("data:") else name
    content = value.get("bytes")
    if isinstance(content, bytes | bytearray) and content:
        return Picture(called, data=bytes(content))
    for encoded in (content, value.get("base64")):
        if isinstance(encoded, str) and encoded.strip():
            return Picture(called, data=_decoded(encoded.rpartition("base64,")[2], place))
    if any(_given(value.get(key)) and not isinstance(value[key], bytes | bytearray) for key in ("bytes", "base64")):
        raise place.wrong("bytes or base64 that are neither bytes nor a text")
    if found is not None:
        return _picture(found, place, name)
    if any(map(_given, value.values())):
        raise place.wrong(f"an object with the keys {', '.join(map(str, value))} names no picture")
    return None  # parquet gives an absent object all its keys, with nulls


def _given(value: Any) -> bool:
    return value is not None and value == value and value not in ("", b"")


def _named(text: str, place: Place, name: str) -> Picture:
    """A path, a file's URL, or a data URL."""
    text = text.strip()
    if text[:5].lower() == "data:":
        return Picture(name, data=_of_data_url(text, place))
    if text[:7].lower() == "file://":
        return Picture(text, path=_path_of(text))
    if ADDRESS.match(text):
        raise place.wrong(f"{text:.100} is an address of the network", DOWNLOAD)
    return Picture(text, path=text)


def _path_of(url: str) -> str:
    """The path of a file's URL: file:///a%20b.jpg, file://localhost/a.jpg, file:///C:/a.jpg, and file://images/a.jpg,
    which people write for a relative one."""
    rest = unquote(url[len("file://") :])
    if rest.lower().startswith("localhost/"):
        rest = rest[len("localhost") :]
    return rest[1:] if re.match(r"/[A-Za-z]:([/\\]|$)", rest) else rest


def _of_data_url(url: str, place: Place) -> bytes:
    head, comma, content = url[len("data:") :].partition(",")
    kind, *settings = head.split(";")
    if not comma or not kind.lower().startswith("image/"):
        raise place.wrong(f"data:{head[:40]} is no data URL of a picture")
    if "base64" not in (setting.strip().lower() for setting in settings):
        raise place.wrong(f"data:{head[:40]} is a data URL without base64")
    return _decoded(unquote_to_bytes(content).decode("ascii", "replace"), place)


def _decoded(text: str, place: Place) -> bytes:
    """base64 with line breaks, in either alphabet, with or without padding."""
    plain = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        content = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise place.wrong("broken base64", "write it again, whole") from error
    if not content:
        raise place.wrong("base64 of nothing", "write it again, whole")
    return content
