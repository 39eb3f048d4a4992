"""From the recipe's data section to the examples of train, validation and test."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

from ..config.schema import RunConfig
from ..formats import labelled
from ..types import DataError, Example, Finding, Problem
from .sources import Table, read_tables
from .splits import count_labels, downsample, sample_stratified, split_stratified


@dataclass
class Corpus:
    """The examples of each split (absent where there is none) and the labels, in the order of their indices.

    `notes` say what was sampled, cut or left out on the way: rows in = rows kept + rows named there.
    """

    splits: dict[str, list[Example]]
    label_names: list[str]
    notes: list[Finding] = field(default_factory=list)

    @property
    def scored_split(self) -> str:
        """Where results are measured: test, else validation, else nothing was held out."""
        return "test" if "test" in self.splits else "validation"

    def fingerprint(self, split: str) -> str:
        """sha256 over texts and labels of a split, to notice that data changed since training."""
        digest = hashlib.sha256()
        for example in self.splits[split]:
            digest.update(repr((example.text, example.text_pair, example.label)).encode())
        return digest.hexdigest()

    def summary(self) -> dict[str, Any]:
        return {
            name: {"rows": len(examples), "labels": count_labels(examples), "sha256": self.fingerprint(name)}
            for name, examples in self.splits.items()
        }


def load_corpus(config: RunConfig) -> Corpus:
    """Reads, names, samples, splits and balances. Raises DataError with every mistake found on the way."""
    tables, problems = read_tables(config.data)
    splits: dict[str, list[Example]] = {}
    for name, table in tables.items():
        try:
            splits[name] = _examples(table, config)
        except DataError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    notes = _drop_unlabelled(splits, config)
    problems += _row_problems(splits)
    if config.data.labels is not None:
        problems += _name_labels(splits, config.data.labels)
    if problems:
        raise DataError(problems)
    label_names = config.data.labels or _label_names(splits["train"], tables["train"], config)
    notes += _make_splits(splits, config)
    return Corpus(splits, list(label_names), notes)


def _examples(table: Table, config: RunConfig) -> list[Example]:
    columns = labelled.resolve_columns(table.columns, config.data.columns, table.source)
    examples, wrong = [], []
    for record, row in zip(table.records, table.rows, strict=True):
        try:
            examples.append(labelled.parse(record, columns, table.source, row, table.label_names))
        except DataError as error:
            wrong.append(error.problems[0])
    if wrong:
        first = wrong[0]
        message = f"{first.message} in {table.source}; {len(wrong):,} of {len(table.records):,} rows are like that"
        raise DataError(Problem(first.where, message, first.fix))
    return examples


def _drop_unlabelled(splits: dict[str, list[Example]], config: RunConfig) -> list[Finding]:
    """A split whose labels are all absent, or all -1 (GLUE's test), cannot be scored: left out, and that is said."""
    notes = []
    for name in ("validation", "test"):
        if name in splits and all(example.label in (None, "-1") for example in splits[name]):
            rows = len(splits.pop(name))
            fix = f"give labelled data as data.{name}" if getattr(config.data, name) else None
            notes.append(Finding("labels", "note", f"the {name} split has no labels ({rows:,} rows): not scored", fix))
    return notes


def _row_problems(splits: dict[str, list[Example]]) -> list[Problem]:
    problems = []
    for name, examples in splits.items():
        empty = [example for example in examples if not example.key[0] or example.key[1] == ""]
        unlabelled = [example for example in examples if example.label is None]
        for rows, what in ((empty, "without text"), (unlabelled, "without a label")):
            if rows:
                shown = ", ".join(str(example.row) for example in rows[:5]) + (", ..." if len(rows) > 5 else "")
                message = f"{len(rows):,} of {len(examples):,} rows {what} in {rows[0].source}: row {shown}"
                problems.append(Problem(f"data.{name}", message, "fill them in or remove them"))
    return problems


def _name_labels(splits: dict[str, list[Example]], names: list[str]) -> list[Problem]:
    """Gives numeric labels the recipe's names, in place."""
    numbered = {str(index): name for index, name in enumerate(names)}
    problems = []
    for split, examples in splits.items():
        unknown = sorted({str(example.label) for example in examples} - set(numbered) - set(names))
        if unknown:
            message = f"labels {', '.join(unknown[:5])} of {split} are neither these names nor 0 to {len(names) - 1}"
            problems.append(Problem("data.labels", message, f"{len(names)} names are given: {', '.join(names)}"))
            continue
        for index, example in enumerate(examples):
            if example.label not in names:
                name = numbered[str(example.label)]
                examples[index] = Example(example.text, name, example.source, example.row, example.text_pair)
    return problems


def _label_names(examples: list[Example], table: Table, config: RunConfig) -> list[str]:
    """In the data set's own order where it has one (ClassLabel), numbers by size, else by the alphabet."""
    labels = {example.label for example in examples if example.label is not None}
    column = labelled.resolve_columns(table.columns, config.data.columns, table.source).label
    named = table.label_names.get(str(column))
    if named is not None and labels <= set(named):
        return named
    if all(re.fullmatch(r"-?[0-9]{1,18}", label) for label in labels):
        return sorted(labels, key=int)
    return sorted(labels)


def _make_splits(splits: dict[str, list[Example]], config: RunConfig) -> list[Finding]:
    """Fills in the splits that were not given, samples and balances train, in place."""
    data, seed, notes = config.data, config.run.seed, []
    if data.max_rows is not None and data.max_rows < len(splits["train"]):
        notes.append(Finding("rows", "note", f"{data.max_rows:,} of {len(splits['train']):,} rows of train drawn"))
        splits["train"] = sample_stratified(splits["train"], data.max_rows, seed)
    train, validation, _ = data.split
    if "validation" not in splits and "test" not in splits:
        parts = split_stratified(splits["train"], data.split, seed)
        splits.update({name: part for name, part in zip(("train", "validation", "test"), parts, strict=True) if part})
        sizes = " / ".join(f"{len(part):,}" for part in parts)
        notes.append(Finding("split", "note", f"train / validation / test cut by seed {seed}: {sizes} rows"))
    elif "validation" not in splits and validation > 0:
        share = validation / (train + validation)
        splits["train"], splits["validation"] = split_stratified(splits["train"], (1 - share, share), seed)
        message = f"validation cut from train by seed {seed}: {len(splits['validation']):,} rows"
        notes.append(Finding("split", "note", message))
    if data.balance == "downsample":
        before = len(splits["train"])
        splits["train"] = downsample(splits["train"], seed)
        notes.append(Finding("balance", "note", f"{len(splits['train']):,} of {before:,} training rows kept"))
    return notes
