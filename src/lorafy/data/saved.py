"""Encoded splits on disk, in the form that `datasets.load_from_disk` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets

from ..machine.quiet import quiet_datasets
from ..types import Features
from .corpus import Corpus


def save_encoded(corpus: Corpus, features: Mapping[str, Sequence[Features]], folder: Path) -> None:
    """Writes every split, labelled as the task's records say."""
    splits = {name: corpus.records.to_dataset(corpus, features, name) for name in corpus.splits}
    with quiet_datasets():
        datasets.DatasetDict(splits).save_to_disk(str(folder))
