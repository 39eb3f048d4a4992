"""Encoded splits on disk, in the form that `datasets.load_from_disk` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from ..quiet import quiet_datasets
from ..types import Features
from .corpus import Corpus


def save_encoded(corpus: Corpus, features: Mapping[str, Sequence[Features]], folder: Path) -> None:
    """Writes every split. Labels of texts are class indices that carry their names (ClassLabel); labels of sequences
    are tokens, -100 where nothing is learned."""
    make = _classified if corpus.task == "classification" else _sequences
    splits = {name: make(corpus, name, features) for name in corpus.splits}
    with quiet_datasets():
        datasets.DatasetDict(splits).save_to_disk(str(folder))


def _sequences(corpus: Corpus, name: str, features: Mapping[str, Sequence[Features]]) -> datasets.Dataset:
    """`row` is the number in the user's file; one row may have become several sequences."""
    ids = datasets.List(datasets.Value("int32"))
    schema = {"input_ids": ids, "attention_mask": datasets.List(datasets.Value("int8")), "labels": ids}
    encoded = features[name]
    columns = {
        "input_ids": [feature.input_ids for feature in encoded],
        "attention_mask": [[1] * len(feature) for feature in encoded],
        "labels": [feature.labels for feature in encoded],
        "row": [feature.row for feature in encoded],
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features(schema | {"row": datasets.Value("int32")}))


def _classified(corpus: Corpus, name: str, features: Mapping[str, Sequence[Features]]) -> datasets.Dataset:
    schema: dict[str, Any] = {"text": datasets.Value("string")}
    if any(example.text_pair is not None for example in corpus.splits["train"]):
        schema["text_pair"] = datasets.Value("string")
    schema |= {
        "input_ids": datasets.List(datasets.Value("int32")),
        "attention_mask": datasets.List(datasets.Value("int8")),
        "label": datasets.ClassLabel(names=list(corpus.label_names)),
    }
    if any(feature.token_type_ids is not None for feature in features["train"]):
        schema["token_type_ids"] = datasets.List(datasets.Value("int8"))
    examples, encoded = corpus.splits[name], features[name]
    columns: dict[str, list[Any]] = {
        "text": [example.text for example in examples],
        "text_pair": [example.text_pair for example in examples],
        "input_ids": [feature.input_ids for feature in encoded],
        "attention_mask": [[1] * len(feature) for feature in encoded],
        "token_type_ids": [feature.token_type_ids for feature in encoded],
        "label": [feature.labels[0] for feature in encoded],
    }
    kept = {column: columns[column] for column in schema}
    return datasets.Dataset.from_dict(kept, features=datasets.Features(schema))
