"""Each distinct picture looked at once, wholly decoded: a truncated jpg opens, and fails at its last lines only."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ..types import DataError, Picture, Problem
from .opening import decode_picture, read_picture, short

MANY = 100
"""From so many pictures on a bar is shown: it takes a second or more."""


def survey(pictures: Sequence[Picture]) -> list[Picture | Problem]:
    """Each picture with its sha256, width and height, or what is wrong with it, in their order."""
    distinct = {_identity(picture): picture for picture in reversed(pictures)}
    pool = ThreadPoolExecutor(os.cpu_count())  # decoders run outside of Python's lock, so threads share the work
    try:
        with _shown(pool.map(_look, distinct.values()), len(distinct)) as looks:
            seen = dict(zip(distinct, looks, strict=True))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl+C does not wait for the rest
    return [_called(seen[_identity(picture)], picture) for picture in pictures]


def _identity(picture: Picture) -> str | bytes | None:
    return picture.path if picture.data is None else picture.data


def _look(picture: Picture) -> Picture | Problem:
    try:
        content = read_picture(picture)
        image = decode_picture(picture, content)
    except DataError as error:
        return error.problems[0]
    return replace(picture, sha256=hashlib.sha256(content).hexdigest(), width=image.width, height=image.height)


def _called(look: Picture | Problem, picture: Picture) -> Picture | Problem:
    """What was seen under the name and with the bytes of this row, where another row showed the same."""
    if isinstance(look, Problem):
        return replace(look, where=short(picture.name))
    return replace(look, name=picture.name)


@contextmanager
def _shown(looks: Iterable[Any], total: int) -> Iterator[Iterable[Any]]:
    """The looks under a bar on stderr, where people see it and there are many."""
    if total <= MANY or not sys.stderr.isatty():
        yield looks
        return
    from rich.progress import Progress

    from ..machine.console import PlainConsole

    with Progress(console=PlainConsole(stderr=True), transient=True) as bar:
        yield bar.track(looks, total=total, description="looking at the pictures")
