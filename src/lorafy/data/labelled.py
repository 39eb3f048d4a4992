"""What a model with a head learns from: texts, or pairs of texts, each with something that is learned of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import datasets

from ..config.schema import RunConfig
from ..contracts import Settled
from ..formats import labelled
from ..formats.labelled import label_text
from ..types import DataError, Example, Features, Finding, Problem
from .rows import rows_without
from .sources import Table


class LabelledRecords:
    """Texts with labels, whatever these are. A subclass reads a label (`accept`), and may name classes."""

    formats: Sequence[str] = ("labelled",)
    needs_writer = False
    is_default = False
    unit = "text"
    loses = "lose their end"
    settings: Sequence[str] = ()

    def uses(self, form: str) -> Sequence[str]:
        """Settings of data that are about its labels."""
        return self.settings

    def suits(self, examples: Sequence[Example], config: RunConfig) -> str | None:
        """See `Records`."""
        return None

    def accept(self, example: Example, config: RunConfig) -> Example:
        """See `Records`."""
        raise NotImplementedError

    def is_absent(self, example: Example) -> bool:
        """Whether the row has no label, or what stands for none in a split that is not to be scored."""
        return example.label is None

    def settle(self, splits: dict[str, list[Example]], table: Table | None, config: RunConfig) -> Settled:
        """Leaves out splits without labels, names rows without text or label, then names the classes."""
        notes, problems = self._drop_unlabelled(splits, config), []
        for name, examples in splits.items():
            empty = [example for example in examples if not example.key[0] or example.key[1] == ""]
            unlabelled = [example for example in examples if example.label is None]
            for rows, what in ((empty, "text"), (unlabelled, "a label")):
                if rows:
                    problems.append(rows_without(name, rows, len(examples), what))
        problems += self.rename(splits, config)
        names = self.label_names(splits["train"], table, config) if not problems and table and "train" in splits else []
        return Settled(list(names), notes, problems)

    def _drop_unlabelled(self, splits: dict[str, list[Example]], config: RunConfig) -> list[Finding]:
        """A split whose labels are all absent (GLUE's test has -1) cannot be scored: left out, and that is said."""
        notes = []
        for name, given in (("validation", config.data.validation), ("test", config.data.test)):
            if name in splits and all(map(self.is_absent, splits[name])):
                rows = len(splits.pop(name))
                fix = f"give labelled data as data.{name}" if given else None
                message = f"the {name} split has no labels ({rows:,} rows): not scored"
                notes.append(Finding("labels", "note", message, fix))
        return notes

    def rename(self, splits: dict[str, list[Example]], config: RunConfig) -> list[Problem]:
        """Gives labels the recipe's names, in place."""
        return []

    def label_names(self, examples: Sequence[Example], table: Table, config: RunConfig) -> list[str]:
        """The classes in the order of their indices; none where there are no classes."""
        return []

    def label_feature(self, corpus: Any) -> Any:
        """What a label is to the `datasets` library."""
        raise NotImplementedError

    def to_dataset(self, corpus: Any, features: Mapping[str, Sequence[Features]], split: str) -> datasets.Dataset:
        """text (and text_pair), what the tokenizer made of it, and label: may be a recipe's data.train again."""
        schema: dict[str, Any] = {"text": datasets.Value("string")}
        if any(example.text_pair is not None for example in corpus.splits["train"]):
            schema["text_pair"] = datasets.Value("string")
        schema |= {
            "input_ids": datasets.List(datasets.Value("int32")),
            "attention_mask": datasets.List(datasets.Value("int8")),
            "label": self.label_feature(corpus),
        }
        if any(feature.token_type_ids is not None for feature in features["train"]):
            schema["token_type_ids"] = datasets.List(datasets.Value("int8"))
        examples, encoded = corpus.splits[split], features[split]
        columns: dict[str, list[Any]] = {
            "text": [example.text for example in examples],
            "text_pair": [example.text_pair for example in examples],
            "input_ids": [feature.input_ids for feature in encoded],
            "attention_mask": [[1] * len(feature) for feature in encoded],
            "token_type_ids": [feature.token_type_ids for feature in encoded],
            "label": [example.label for example in examples],
        }
        kept = {column: columns[column] for column in schema}
        return datasets.Dataset.from_dict(kept, features=datasets.Features(schema))


class ClassRecords(LabelledRecords):
    """One class a text."""

    is_default = True
    settings = ("labels", "balance")

    def accept(self, example: Example, config: RunConfig) -> Example:
        """The label's one spelling. Raises DataError for several labels."""
        label = example.label
        if isinstance(label, list | Mapping):
            label = list(label)
            if len(label) > 1:
                message = f"a text holds {len(label)} labels (row {example.row}): one label a text is learned here"
                raise DataError(Problem("data.columns.label", message, "keep one label a row, or set task=multi_label"))
            label = label[0] if label else None
        return replace(example, label=label_text(label))

    def is_absent(self, example: Example) -> bool:
        """-1 is GLUE's."""
        return example.label in (None, "-1")

    def rename(self, splits: dict[str, list[Example]], config: RunConfig) -> list[Problem]:
        """Gives numeric labels the recipe's names, in place."""
        names = config.data.labels
        if names is None:
            return []
        numbered = {str(index): name for index, name in enumerate(names)}
        problems = []
        for split, examples in splits.items():
            unknown = sorted({str(example.label) for example in examples} - set(numbered) - set(names))
            if unknown:
                message = (
                    f"labels {', '.join(unknown[:5])} of {split} are neither these names nor 0 to {len(names) - 1}"
                )
                problems.append(Problem("data.labels", message, f"{len(names)} names are given: {', '.join(names)}"))
                continue
            for index, example in enumerate(examples):
                if example.label not in names:
                    examples[index] = replace(example, label=numbered[str(example.label)])
        return problems

    def label_names(self, examples: Sequence[Example], table: Table, config: RunConfig) -> list[str]:
        """The recipe's, else in the data set's own order where it has one (ClassLabel), numbers by size, else by the
        alphabet."""
        if config.data.labels is not None:
            return config.data.labels
        labels = {example.label for example in examples if example.label is not None}
        column = labelled.resolve_columns(table.columns, config.data.columns, table.source).label
        named = table.label_names.get(str(column))
        return named if named is not None and labels <= set(named) else in_order(labels)

    def label_feature(self, corpus: Any) -> Any:
        """Class indices that carry their names."""
        return datasets.ClassLabel(names=list(corpus.label_names))


def in_order(names: set[str]) -> list[str]:
    """Numbers by size, else by the alphabet."""
    if all(is_number(name) for name in names):
        return sorted(names, key=lambda name: (Decimal(name), name))
    return sorted(names)


def is_number(text: str) -> bool:
    """Whether it is written as a number: `-1`, `0.5`."""
    return re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", text) is not None
