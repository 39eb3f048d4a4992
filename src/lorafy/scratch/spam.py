"""Labelled texts: reading, balancing, splitting, and rows of token ids that fit into one batch."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

LABELS = ("ham", "spam")
"""The names of the classes 0 and 1."""

Row = tuple[str, int]
"""A text and the number of its class."""


class Tokenizer(Protocol):
    """What `SpamDataset` and `classify_text` need of a tokenizer."""

    @property
    def pad_id(self) -> int: ...

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


def read_messages(path: str | Path, labels: Sequence[str] = LABELS) -> list[Row]:
    """A .csv with the columns label and text, or else the original UCI file: label, a tab, the text, in each line."""
    path = Path(path)
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            return [(row["text"], labels.index(row["label"])) for row in csv.DictReader(file)]
        # By hand, not by a csv reader: a stray quote in a message would swallow the messages after it.
        pairs = [line.rstrip("\r\n").split("\t", 1) for line in file]
    return [(text, labels.index(label)) for label, text in pairs]


def drop_repeated(rows: Sequence[Row]) -> list[Row]:
    """Each text once, where it came first. A text in the training rows and in the test rows would be no test."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row[0], row)
    return list(first.values())


def create_balanced_dataset(rows: Sequence[Row], seed: int = 123) -> list[Row]:
    """As many rows of each class as the rarest class has, drawn without repetition, in their order."""
    by_label: dict[int, list[int]] = defaultdict(list)
    for index, (_, label) in enumerate(rows):
        by_label[label].append(index)
    fewest = min(len(indices) for indices in by_label.values())
    generator = torch.Generator().manual_seed(seed)
    kept: list[int] = []
    for label in sorted(by_label):
        drawn = torch.randperm(len(by_label[label]), generator=generator)[:fewest]
        kept += [by_label[label][i] for i in drawn.tolist()]
    return [rows[index] for index in sorted(kept)]


def random_split(
    rows: Sequence[Row], train_share: float = 0.7, validation_share: float = 0.1, seed: int = 123
) -> tuple[list[Row], list[Row], list[Row]]:
    """Shuffled and cut in three: train, validation, and the rest for the test. Every row is in exactly one."""
    if min(train_share, validation_share, 1 - train_share - validation_share) <= 0:
        raise ValueError(f"shares of {train_share} and {validation_share} leave no rows for one of the three parts")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    shuffled = [rows[index] for index in order]
    num_train, num_validation = round(train_share * len(rows)), round(validation_share * len(rows))
    return (
        shuffled[:num_train],
        shuffled[num_train : num_train + num_validation],
        shuffled[num_train + num_validation :],
    )


class Batch(NamedTuple):
    """Of one row: ids (T,), its length and label as numbers. Of B rows: ids (B, T), lengths (B,), labels (B,)."""

    ids: torch.Tensor
    lengths: torch.Tensor
    labels: torch.Tensor


def padded(ids: Sequence[int], max_length: int, pad_id: int) -> tuple[list[int], int]:
    """Exactly `max_length` ids, and how many of them are real. What is too long is cut.

    A text without tokens counts as one padding token: the model needs something to read.
    """
    real = list(ids[:max_length])
    return real + [pad_id] * (max_length - len(real)), max(1, len(real))


class SpamDataset(Dataset[Batch]):
    """Texts as rows of token ids of one length.

    max_length: None is the longest row here. Build the training set so, and hand its max_length to the other splits:
    the model must not learn from them how long texts get. num_cut: how many texts were longer, and lost their end.
    """

    def __init__(
        self, texts: Sequence[str], labels: Sequence[int], tokenizer: Tokenizer, max_length: int | None = None
    ):
        if len(texts) != len(labels) or not texts:
            raise ValueError(f"{len(texts)} texts with {len(labels)} labels: need as many of each, and at least one")
        encoded = [tokenizer.encode(text) for text in texts]
        longest = max(1, *map(len, encoded))
        self.max_length = longest if max_length is None else max_length
        self.num_cut = sum(len(ids) > self.max_length for ids in encoded)
        rows = [padded(ids, self.max_length, tokenizer.pad_id) for ids in encoded]
        self.ids = torch.tensor([ids for ids, _ in rows])  # (N, max_length)
        self.lengths = torch.tensor([length for _, length in rows])  # (N,)
        self.labels = torch.tensor(list(labels))  # (N,)

    @classmethod
    def from_rows(cls, rows: Sequence[Row], tokenizer: Tokenizer, max_length: int | None = None) -> SpamDataset:
        return cls([text for text, _ in rows], [label for _, label in rows], tokenizer, max_length)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        return Batch(self.ids[index], self.lengths[index], self.labels[index])


def make_loader(
    dataset: Dataset[Batch], batch_size: int = 8, *, shuffle: bool = False, seed: int = 123
) -> DataLoader[Batch]:
    """Batches of (ids, lengths, labels), shuffled anew in each pass by a generator of its own: the same in each run."""
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(dataset, batch_size, shuffle=shuffle, generator=generator)
