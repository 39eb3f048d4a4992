"""Which records hold a number a text, and how it is read."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import datasets

from ...config.schema import RunConfig
from ...data.labelled import LabelledRecords
from ...types import DataError, Example, Problem

DECIMAL = re.compile(r"[+-]?[0-9]*\.[0-9]+([eE][+-]?[0-9]+)?")


class Values(LabelledRecords):
    """Texts with a number each."""

    def suits(self, examples: Sequence[Example], config: RunConfig) -> str | None:
        """Every label is a decimal number, and not all are whole: those may be classes that a program wrote as 1.0."""
        labels = [example.label for example in examples]
        if config.data.labels is not None or not labels or not all(map(is_decimal, labels)):
            return None
        broken = next((label for label in labels if float(label) % 1), None)
        return None if broken is None else f"every label of train is a decimal number, such as {broken}"

    def accept(self, example: Example, config: RunConfig) -> Example:
        """The example with its number; NaN, which is how data frames write a missing cell, is none. Raises DataError
        for what is no number."""
        label = example.label
        if isinstance(label, dict):
            message = f"it is a list of columns ({', '.join(label)}): regression reads the number from one column"
            raise DataError(Problem("data.columns.label", message, "write one name without brackets"))
        if label is None or label != label or (isinstance(label, str) and label.strip().lower() in ("", "nan")):
            return replace(example, label=None)
        try:
            value = math.nan if isinstance(label, bool | list) else float(label)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            message = f"a label is {label!r} (row {example.row}), where a number is meant"
            fix = "write it as 3.5, name another column, or set task=classification"
            raise DataError(Problem("data.columns.label", message, fix))
        return replace(example, label=value)

    def is_absent(self, example: Example) -> bool:
        """Whether the row has no number; -1 is GLUE's for none."""
        return example.label is None or example.label == -1

    def label_feature(self, corpus: Any) -> Any:
        """The type of the label column in the `datasets` library: a float64."""
        return datasets.Value("float64")


def is_decimal(label: Any) -> bool:
    """Whether a label is written with its decimals, or is no whole number by its type."""
    if isinstance(label, str):
        return DECIMAL.fullmatch(label.strip()) is not None
    return isinstance(label, float) and math.isfinite(label)
