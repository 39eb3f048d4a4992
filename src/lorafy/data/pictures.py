"""What a vision-language model learns from: questions with pictures, answered in text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets

from ..config.schema import RunConfig
from ..contracts import Settled
from ..pictures.opening import NO_FILE
from ..pictures.placing import WRITTEN_MARK
from ..pictures.survey import survey
from ..types import Conversation, DataError, Features, Picture, Problem
from .conversations import ConversationRecords

SHOWN_ROWS = 5
IMAGES = "data.images"


class PictureRecords(ConversationRecords):
    """Conversations whose questions may show pictures."""

    formats: Sequence[str] = ("chat", "completion")
    is_default = False

    def uses(self, form: str) -> Sequence[str]:
        """Keys of the data section that are about turns and pictures."""
        return (*super().uses(form), "images", "max_pixels")

    def suits(self, examples: Sequence[Conversation], config: RunConfig) -> str | None:
        """Where a row shows a picture, whatever the model: one that sees none is refused then."""
        return "rows show pictures" if any(example.pictures for example in examples) else None

    def accept(self, example: Conversation, config: RunConfig) -> Conversation:
        """The conversation as it is. Raises DataError for a mark without a picture: the model would read it as text."""
        if any(message.role == "user" and WRITTEN_MARK in message.content for message in example.messages):
            message = f"a question holds the mark {WRITTEN_MARK}, and there is no picture for it (row {example.row})"
            raise DataError(Problem("data.columns.images", message, "add a column images, or take the mark out"))
        return example

    def settle(self, splits: dict[str, list[Conversation]], named: Any, config: RunConfig) -> Settled:
        """Looks at every distinct picture once and puts what was seen into the conversations, in place; names every
        picture that cannot be used, and the rows whose messages are blank."""
        settled = super().settle(splits, named, config)
        folder = None if config.data.images is None else Path(config.data.images)
        if folder is not None and not folder.is_dir():
            problem = Problem(IMAGES, f"no such folder: {folder}", "name the folder that the pictures' paths begin at")
            return replace(settled, problems=[*settled.problems, problem])
        homeless: dict[str, Problem] = {}
        for name, examples in splits.items():
            examples[:] = [_at_home(example, folder, name, homeless) for example in examples]
        problems = list(homeless.values()) or _look(splits)
        return replace(settled, problems=[*settled.problems, *problems])

    def to_dataset(self, corpus: Any, features: Mapping[str, Sequence[Features]], split: str) -> datasets.Dataset:
        """As of a language model, with the names of each sequence's pictures beside."""
        names = [[placed.picture.name for placed in feature.pictures] for feature in features[split]]
        encoded = super().to_dataset(corpus, features, split)
        return encoded.add_column("images", names, feature=datasets.List(datasets.Value("string")))


def look_at(pictures: Sequence[Picture], base: Path) -> list[Picture]:
    """Each picture with its absolute path, sha256, width and height. base: the folder of relative paths.

    Raises DataError with everything that is wrong.
    """
    looks = survey([_under(picture, base) for picture in pictures])
    problems = [look for look in looks if isinstance(look, Problem)]
    if problems:
        raise DataError(dict.fromkeys(problems))
    return [look for look in looks if isinstance(look, Picture)]


def _under(picture: Picture, base: Path) -> Picture:
    """With an absolute path."""
    if picture.path is None:
        return picture
    return replace(picture, path=str(Path(base, picture.path).absolute()))


def _at_home(example: Conversation, folder: Path | None, split: str, homeless: dict[str, Problem]) -> Conversation:
    """With absolute paths. A split of a hub data set has no folder: its first relative path is a problem."""
    base = folder or _folder_of(example.source)

    def home(picture: Picture) -> Picture:
        if base is None and picture.path is not None and not Path(picture.path).is_absolute():
            message = f"{example.source} is no file or folder here, so {picture.path} (row {example.row}) is nowhere"
            fix = f"set {IMAGES} to the folder that the pictures' paths begin at"
            homeless.setdefault(split, Problem(f"data.{split}", message, fix))
        return _under(picture, base or Path())

    return _with_pictures(example, home)


def _look(splits: dict[str, list[Conversation]]) -> list[Problem]:
    """Puts what is seen of every picture into the conversations, in place; or gives what is wrong with some."""
    places = [(name, row, picture) for name, row in _rows(splits) for picture in row.pictures]
    looks = survey([picture for _, _, picture in places])
    wrong: dict[tuple[str, Problem], list[Conversation]] = {}
    for (name, row, _), look in zip(places, looks, strict=True):
        if isinstance(look, Problem):
            wrong.setdefault((name, look), []).append(row)
    if wrong:
        return [_bad_picture(name, problem, rows) for (name, problem), rows in wrong.items()]
    seen = iter(looks)
    for examples in splits.values():
        examples[:] = [_with_pictures(example, lambda _: next(seen)) for example in examples]
    return []


def _rows(splits: Mapping[str, Sequence[Conversation]]) -> Iterable[tuple[str, Conversation]]:
    return ((name, example) for name, examples in splits.items() for example in examples)


def _with_pictures(example: Conversation, other: Callable[[Picture], Any]) -> Conversation:
    """The conversation with another for each of its pictures, in order."""
    if not example.pictures:
        return example
    messages = (replace(message, pictures=tuple(map(other, message.pictures))) for message in example.messages)
    return replace(example, messages=tuple(messages))


def _bad_picture(split: str, problem: Problem, rows: Sequence[Conversation]) -> Problem:
    numbers = list(dict.fromkeys(row.row for row in rows))
    shown = ", ".join(map(str, numbers[:SHOWN_ROWS]))
    more = f" and {len(numbers) - SHOWN_ROWS:,} more" if len(numbers) > SHOWN_ROWS else ""
    message = f"{problem.where}: {problem.message} (row{'s' * (len(numbers) > 1)} {shown}{more} of {rows[0].source})"
    fix = problem.fix
    if fix == NO_FILE:
        fix = f"{fix}, or set {IMAGES} to the folder that the paths begin at"
    return Problem(f"data.{split}", message, fix)


def _folder_of(source: str) -> Path | None:
    """Where the data lie: the file's folder, or the saved data set's own; None: on the hub."""
    for name in (source, re.sub(r"\[\w+\]$", "", source)):  # a saved data set with splits is called folder[train]
        path = Path(name)
        if path.is_file():
            return path.absolute().parent
        if path.is_dir():
            return path.absolute()
    return None
