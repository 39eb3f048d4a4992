"""Small labelled files, read as a recipe reads them: for the tests of what a text is labelled with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lorafy.config import parse_config
from lorafy.data.corpus import Corpus
from lorafy.models.load import open_source
from lorafy.tasks import read_corpus


def read(file: Path, task: str = "auto", **data: Any) -> Corpus:
    tree = {"model": {"path": "minilm"}, "task": task, "data": {"train": str(file), **data}}
    config = parse_config(tree, "the test")
    return read_corpus(config, open_source(config.model))


def in_order(corpus: Corpus) -> list[Any]:
    """The labels of all rows."""
    examples = [example for split in corpus.splits.values() for example in split]
    return [example.label for example in sorted(examples, key=lambda example: example.row)]


def notes(corpus: Corpus) -> list[str]:
    return [note.message for note in corpus.notes if note.check == "task"]
