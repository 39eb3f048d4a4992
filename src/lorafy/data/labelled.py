"""What a model with a head learns from: texts, or pairs of texts, each with something that is learned of it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import datasets

from ..config.schema import RunConfig
from ..contracts import Settled
from ..formats.labelled import label_text
from ..types import DataError, Example, Features, Finding, Problem
from .rows import rows_without


class LabelledRecords:
    """Texts with labels, whatever these are. A subclass reads a label (`accept`), and may name classes."""

    formats: Sequence[str] = ("labelled",)
    needs_writer = False
    row_by_row = False
    is_default = False
    unit = "text"
    loses = "lose their end"
    settings: Sequence[str] = ()

    def uses(self, form: str) -> Sequence[str]:
        """Keys of the data section that are about labels."""
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

    def settle(self, splits: dict[str, list[Example]], named: Sequence[str] | None, config: RunConfig) -> Settled:
        """Leaves out splits without labels, names rows without text or label, then names the classes."""
        notes, problems = self._drop_unlabelled(splits, config), []
        for name, examples in splits.items():
            empty = [example for example in examples if not example.key[0] or example.key[1] == ""]
            unlabelled = [example for example in examples if example.label is None]
            for rows, what in ((empty, "text"), (unlabelled, "a label")):
                if rows:
                    problems.append(rows_without(name, rows, len(examples), what))
        problems += self.rename(splits, config)
        names = self.label_names(splits["train"], named, config) if not problems and "train" in splits else []
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

    def label_names(self, examples: Sequence[Example], named: Sequence[str] | None, config: RunConfig) -> list[str]:
        """The classes in the order of their indices; none where there are no classes."""
        return []

    def class_names(self, shown: set[str], named: Sequence[str] | None, config: RunConfig) -> list[str]:
        """Names of the classes: the recipe's, else the data set's own in its order (ClassLabel), else `shown`:
        numbers by size, names by the alphabet. shown: the classes of train."""
        if config.data.labels is not None:
            return config.data.labels
        return list(named) if named is not None and shown <= set(named) else in_order(shown)

    def label_feature(self, corpus: Any) -> Any:
        """The type of the label column in the `datasets` library."""
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
    """Texts with one class each."""

    is_default = True
    settings = ("labels", "balance")

    def accept(self, example: Example, config: RunConfig) -> Example:
        """The example with its label in its one spelling. Raises DataError for several labels."""
        label = example.label
        if isinstance(label, Mapping):
            message = f"it is a list of columns ({', '.join(label)}): classification reads the label from one column"
            fix = "write one name without brackets, or set task=multi_label for columns of 0 and 1"
            raise DataError(Problem("data.columns.label", message, fix))
        listed = as_list(label)
        if listed is not None:
            if len(listed) > 1:
                message = f"a text holds {len(listed)} labels (row {example.row}): one label a text is learned here"
                raise DataError(Problem("data.columns.label", message, "keep one label a row, or set task=multi_label"))
            label = listed[0] if listed else None
        return replace(example, label=label_text(label))

    def is_absent(self, example: Example) -> bool:
        """Whether the row has no label; -1 is GLUE's for none."""
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

    def label_names(self, examples: Sequence[Example], named: Sequence[str] | None, config: RunConfig) -> list[str]:
        """See `class_names`."""
        return self.class_names({name for example in examples for name in example.classes}, named, config)

    def label_feature(self, corpus: Any) -> Any:
        """Class indices that carry their names."""
        return datasets.ClassLabel(names=list(corpus.label_names))


def as_list(label: Any) -> list[Any] | None:
    """A list as it is, or out of its text, as csv files hold it (JSON's, or Python's: `['a', 'b']`); None for what is
    none."""
    if isinstance(label, str) and label.strip().startswith("["):
        for read in (json.loads, ast.literal_eval):
            try:
                label = read(label.strip())
            except (ValueError, SyntaxError, TypeError, RecursionError):
                continue
            break
    return label if isinstance(label, list) else None


def in_order(names: set[str]) -> list[str]:
    """The names in order: numbers by size, else by the alphabet."""
    if all(is_number(name) for name in names):
        return sorted(names, key=lambda name: (Decimal(name), name))
    return sorted(names)


def is_number(text: str) -> bool:
    """Whether a text is written as a number: `-1`, `0.5`."""
    return re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", text) is not None
