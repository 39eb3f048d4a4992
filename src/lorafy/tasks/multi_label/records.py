"""Which records hold several labels a text, and how they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import datasets

from ...config.schema import RunConfig
from ...data.labelled import LabelledRecords, in_order, label_text
from ...data.sources import Table
from ...types import DataError, Example, Problem

SEPARATORS = ("|", ";", ",")
YES, NO = ("1", "true"), ("0", "false")


class LabelSets(LabelledRecords):
    """A set of labels a text: a list of names, a list of 0 and 1, a separated text, or a column of 0 and 1 for each."""

    settings = ("labels", "label_separator")

    def suits(self, examples: Sequence[Example], config: RunConfig) -> str | None:
        """Several columns of labels, or lists that do not all hold one label."""
        if isinstance(config.data.columns.label, list):
            return "data.columns.label names several columns"
        lists = [listed for example in examples if (listed := as_list(example.label)) is not None]
        if not lists or len(lists) < len(examples) or all(len(listed) == 1 for listed in lists):
            return None
        return f"the labels are lists, such as {next(listed for listed in lists if len(listed) != 1)}"

    def accept(self, example: Example, config: RunConfig) -> Example:
        """A tuple of names, in the order of the row. Raises DataError for columns that hold else than 0 and 1.

        An empty list is a text without labels; an empty cell is a missing answer.
        """
        label = example.label
        if isinstance(label, Mapping):
            names = tuple(name for name, value in label.items() if self._is_yes(name, value, example.row))
        elif (listed := as_list(label)) is not None:
            names = tuple(text for one in listed if (text := label_text(one)) is not None)
        else:
            text = label_text(label)
            return replace(example, label=None if text is None else separated(text, config.data.label_separator))
        return replace(example, label=names)

    def _is_yes(self, name: str, value: Any, row: int) -> bool:
        text = label_text(value)
        if text not in (*YES, *NO):
            message = f"'{name}' holds {'nothing' if text is None else repr(text)} (row {row}), where 0 or 1 is meant"
            raise DataError(Problem("data.columns.label", message, "write 0 or 1, or name another column"))
        return text in YES

    def rename(self, splits: dict[str, list[Example]], config: RunConfig) -> list[Problem]:
        """Lists of 0 and 1 become names; numbers of classes get the recipe's names. In place."""
        examples = [example for split in splits.values() for example in split if example.label is not None]
        names, problems = config.data.labels, []
        lengths = {len(example.label) for example in examples}
        digits = {name for example in examples for name in example.label}
        if isinstance(config.data.columns.label, list) and names is not None:
            message = "no effect: the columns of data.columns.label are the names"
            return [Problem("data.labels", message, "remove it")]
        places = next(iter(lengths)) if len(lengths) == 1 else 0
        by_place = places > 1 and digits <= {"0", "1"}
        if by_place and names is not None and len(names) != places:
            message = f"{len(names)} names for lists of {places} values of 0 and 1"
            return [Problem("data.labels", message, "give a name for each place")]
        numbered = {str(index): name for index, name in enumerate(names or [])}
        shown = names or [str(index) for index in range(places)]
        for split, rows in splits.items():
            unknown: set[str] = set()
            for index, example in enumerate(rows):
                if example.label is None:
                    continue
                if by_place:
                    found = tuple(name for name, value in zip(shown, example.label, strict=True) if value == "1")
                else:
                    found = tuple(dict.fromkeys(numbered.get(name, name) for name in example.label))
                    unknown |= set(found) - set(names or found)
                rows[index] = replace(example, label=found)
            if unknown:
                message = f"labels {', '.join(sorted(unknown)[:5])} of {split} are not among these names"
                problems.append(Problem("data.labels", message, f"given are {', '.join(names or [])}"))
        return problems

    def label_names(self, examples: Sequence[Example], table: Table, config: RunConfig) -> list[str]:
        """The recipe's names or columns, else those of the train split: numbers by size, else by the alphabet."""
        columns = config.data.columns.label
        if isinstance(columns, list):
            return list(columns)
        return config.data.labels or in_order({name for example in examples for name in example.classes})

    def label_feature(self, corpus: Any) -> Any:
        """A list of names."""
        return datasets.List(datasets.Value("string"))


def as_list(label: Any) -> list[Any] | None:
    """A list as it is, or out of a JSON text, which is how csv holds it; None for what is none."""
    if isinstance(label, str) and label.strip().startswith("["):
        try:
            label = json.loads(label)
        except ValueError:
            return None
    return label if isinstance(label, list) else None


def separated(text: str, separator: str | None) -> tuple[str, ...]:
    """The names in a text, each once."""
    found = separator or next((one for one in SEPARATORS if one in text), None)
    parts = [text] if found is None else text.split(found)
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
