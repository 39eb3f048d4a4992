"""Which records hold several labels a text, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import datasets

from ...config.schema import RunConfig
from ...contracts import Settled
from ...data.labelled import LabelledRecords, as_list, label_text
from ...types import DataError, Example, Problem

SEPARATORS = ("|", ";", ",")
YES, NO = ("1", "true"), ("0", "false")
WHERE = "data.columns.label"

Splits = dict[str, list[Example]]


class LabelSets(LabelledRecords):
    """Texts with a set of labels each: a list of names, a list of 0 and 1, a separated text, or a column of 0 and 1 for
    each."""

    settings = ("labels", "label_separator")

    def suits(self, examples: Sequence[Example], config: RunConfig) -> str | None:
        """Several columns of labels, a separator, or lists that do not all hold one label."""
        if isinstance(config.data.columns.label, list):
            return "data.columns.label is a list of columns"
        if config.data.label_separator is not None:
            return "data.label_separator is given"
        labels = [example.label for example in examples if label_text(example.label) is not None]
        lists = [listed for label in labels if (listed := as_list(label)) is not None]
        if not lists or len(lists) < len(labels) or all(len(listed) == 1 for listed in lists):
            return None
        return f"the labels are lists, such as {next((listed for listed in lists if len(listed) > 1), [])}"

    def accept(self, example: Example, config: RunConfig) -> Example:
        """A tuple of what stands in the lists, or a text that `rename` takes apart. Raises DataError for columns that
        hold else than 0 and 1, and for lists that hold else than names and numbers.

        An empty list is a text without labels; an empty cell is a missing answer.
        """
        label = example.label
        if isinstance(label, Mapping):
            names = tuple(name for name, value in label.items() if _is_yes(name, value, example.row))
        elif (listed := as_list(label)) is not None:
            names = tuple(_name(one, example.row) for one in listed)
        else:
            text = label_text(label)
            if text is not None and text[0] == "[" and text[-1] == "]" and config.data.label_separator is None:
                message = f"{text[:40]} (row {example.row}) looks like a list, but is none"
                raise DataError(Problem(WHERE, message, 'write ["a", "b"] or a|b, or set data.label_separator'))
            return replace(example, label=text)
        return replace(example, label=names)

    def settle(self, splits: Splits, named: Sequence[str] | None, config: RunConfig) -> Settled:
        """Lists of 0 and 1 keep every place, also one that is 0 in every row."""
        places = num_places(splits, config)
        settled = super().settle(splits, named, config)
        if not places or config.data.labels is not None or not settled.label_names:
            return settled
        return replace(settled, label_names=[str(index) for index in range(places)])

    def rename(self, splits: Splits, config: RunConfig) -> list[Problem]:
        """Texts are taken apart, lists of 0 and 1 become names, numbers of classes get the recipe's names; each set is
        sorted. In place."""
        names, places = config.data.labels, num_places(splits, config)
        problems = [*_columns_problems(config), *_separator_problems(splits, config)]
        if places:
            problems += _places_problems(splits, places, names)
        if problems:
            return problems
        separator = config.data.label_separator or usual_separator(splits)
        numbered = {str(index): name for index, name in enumerate(names or [])}
        by_place = names or [str(index) for index in range(places)]
        for split, rows in splits.items():
            unknown: set[str] = set()
            for index, example in enumerate(rows):
                if example.label is None:
                    continue
                if isinstance(example.label, str):
                    said = separated(example.label, separator)
                elif places:
                    said = [name for name, value in zip(by_place, example.label, strict=True) if value in YES]
                else:
                    said = list(example.label)
                found = {numbered.get(name, name) for name in said}
                unknown |= found - set(names or found)
                rows[index] = replace(example, label=tuple(sorted(found)))
            if unknown:
                message = f"labels {', '.join(sorted(unknown)[:5])} of {split} are not among these names"
                problems.append(Problem("data.labels", message, f"given are {', '.join(names or [])}"))
        return problems

    def label_names(self, examples: Sequence[Example], named: Sequence[str] | None, config: RunConfig) -> list[str]:
        """The recipe's columns, else see `class_names`."""
        columns = config.data.columns.label
        if isinstance(columns, list):
            return list(columns)
        return self.class_names({name for example in examples for name in example.classes}, named, config)

    def label_feature(self, corpus: Any) -> Any:
        """The type of the label column in the `datasets` library: a list of names."""
        return datasets.List(datasets.Value("string"))


def _is_yes(name: str, value: Any, row: int) -> bool:
    text = label_text(value)
    if text is None or text.lower() not in (*YES, *NO):
        message = f"'{name}' holds {'nothing' if text is None else repr(text)} (row {row}), where 0 or 1 is meant"
        raise DataError(Problem(WHERE, message, "write 0 or 1, or name another column"))
    return text.lower() in YES


def _name(one: Any, row: int) -> str:
    text = None if isinstance(one, list | Mapping) else label_text(one)
    if text is None:
        message = f"a list of labels holds {one!r} (row {row}), where a name or a number is meant"
        raise DataError(Problem(WHERE, message, 'write ["a", "b"], and [] for a text without labels'))
    return text


def _lists(splits: Splits) -> list[Example]:
    return [example for rows in splits.values() for example in rows if isinstance(example.label, tuple)]


def num_places(splits: Splits, config: RunConfig) -> int:
    """The length of lists of 0 and 1, one place for each label; 0 where the lists hold names or numbers of classes.

    Numbers of classes do not repeat in a row, and are not equally many in every row.
    """
    lists = [] if isinstance(config.data.columns.label, list) else _lists(splits)
    if not {value for example in lists for value in example.label} <= {*YES, *NO}:
        return 0
    lengths = [len(example.label) for example in lists if example.label]
    repeated = any(len(set(example.label)) < len(example.label) for example in lists)
    longest = max(lengths, default=0)
    return longest if repeated or (longest > 1 and len(set(lengths)) == 1) else 0


def _columns_problems(config: RunConfig) -> list[Problem]:
    columns = config.data.columns.label
    if not isinstance(columns, list):
        return []
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    problems = [Problem(WHERE, f"'{name}' stands there more than once", "name it once") for name in repeated]
    if config.data.labels is not None:
        problems.append(
            Problem("data.labels", "no effect: the columns of data.columns.label are the names", "remove it")
        )
    return problems


def _separator_problems(splits: Splits, config: RunConfig) -> list[Problem]:
    """A problem where a separator is given and there is nothing to take apart."""
    if config.data.label_separator is None or not _lists(splits):
        return []
    return [Problem("data.label_separator", "no effect: the labels are lists or columns", "remove it")]


def _places_problems(splits: Splits, places: int, names: Sequence[str] | None) -> list[Problem]:
    odd = next((example for example in _lists(splits) if len(example.label) != places), None)
    if odd is not None:
        message = f"lists of 0 and 1 are not equally long: {places} values, but {len(odd.label)} in row {odd.row}"
        return [Problem(WHERE, f"{message} of {odd.source}", "write a 0 or a 1 for each label in each row")]
    if names is not None and len(names) != places:
        message = f"{len(names)} names for lists of {places} values of 0 and 1"
        return [Problem("data.labels", message, "give a name for each place")]
    return []


def usual_separator(splits: Splits) -> str | None:
    """The first of the usual separators that stands in any row: one and the same for all."""
    texts = [example.label for rows in splits.values() for example in rows if isinstance(example.label, str)]
    return next((one for one in SEPARATORS if any(one in text for text in texts)), None)


def separated(text: str, separator: str | None) -> list[str]:
    """The names in a text."""
    parts = [text] if separator is None else text.split(separator)
    return [part.strip() for part in parts if part.strip()]
