"""From the recipe's data section to the examples of train, validation and test."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

from ..config.schema import DataSection, RunConfig
from ..contracts import load_plugin
from ..formats import labelled
from ..types import Conversation, DataError, Example, Finding, Problem
from .sources import Table, read_tables
from .splits import count_labels, downsample, sample_stratified, split_stratified


@dataclass
class Corpus:
    """The examples of each split (absent where there is none), read in one format, for one task.

    `label_names` stand in the order of their indices; a language model's data have none. `notes` say what was sampled,
    cut or left out on the way: rows in = rows kept + rows named there.
    """

    splits: dict[str, list[Any]]
    label_names: list[str]
    format: str
    notes: list[Finding] = field(default_factory=list)

    @property
    def task(self) -> str:
        return load_plugin("formats", self.format).TASK

    @property
    def scored_split(self) -> str:
        """Where results are measured: test, else validation, else nothing was held out."""
        return "test" if "test" in self.splits else "validation"

    def fingerprint(self, split: str) -> str:
        """sha256 over all that a split's examples say, to notice that data changed since training."""
        digest = hashlib.sha256()
        for example in self.splits[split]:
            digest.update(repr(example.content).encode())
        return digest.hexdigest()

    def summary(self) -> dict[str, Any]:
        return {
            name: {"rows": len(examples), "labels": count_labels(examples), "sha256": self.fingerprint(name)}
            for name, examples in self.splits.items()
        }


FORMATS = ("chat", "completion", "labelled", "text")
"""In the order in which they are tried; `labelled` first for a model that was not made to write."""


def choose_format(config: RunConfig, names: list[str], generative: bool) -> str:
    """The recipe's format, else the first that recognises the columns and serves task and model."""
    if config.data.format != "auto":
        return config.data.format
    label_is_named = config.data.columns.label is not None
    is_labelled = config.task == "classification" or (config.task == "auto" and (label_is_named or not generative))
    if is_labelled:
        return "labelled"
    tried = [name for name in FORMATS if config.task == "auto" or name != "labelled"]
    found = (name for name in tried if load_plugin("formats", name).recognises(names, config.data.columns))
    return next(found, "completion")


def load_corpus(config: RunConfig, generative: bool) -> Corpus:
    """Reads, names, samples, splits and balances. `generative`: whether the model was made to write text.

    Raises DataError and ConfigError with every mistake found on the way.
    """
    tables, problems = read_tables(config.data)
    names = tables["train"].columns if "train" in tables else []
    chosen = choose_format(config, names, generative)
    problems += _without_effect(config, chosen)
    splits: dict[str, list[Any]] = {}
    for name, table in tables.items():
        try:
            splits[name] = _examples(table, config.data, chosen)
        except DataError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if load_plugin("formats", chosen).TASK == "classification":
        notes = _drop_unlabelled(splits, config)
        problems += _row_problems(splits)
        if config.data.labels is not None:
            problems += _name_labels(splits, config.data.labels)
    else:
        notes = []
        problems += _blank_messages(splits)
    if problems:
        raise DataError(problems)
    label_names: list[str] = []
    if chosen == "labelled":
        label_names = config.data.labels or _label_names(splits["train"], tables["train"], config)
    notes += _make_splits(splits, config)
    return Corpus(splits, list(label_names), chosen, notes)


ONLY_LABELLED = ("labels", "balance")
NO_TURNS = ("labelled", "text")
ONLY_CONVERSATIONS = ("system", "thinking", "too_long", "train_on_prompt")


def _without_effect(config: RunConfig, chosen: str) -> list[Problem]:
    """Settings that this format or its task does not know."""
    task = load_plugin("formats", chosen).TASK
    if config.task not in ("auto", task):
        message = f"{config.task} does not learn from data in the format {chosen}, but {task} does"
        return [Problem("task", message, "remove task, or name columns and data.format")]
    unused = [*(ONLY_LABELLED if task == "causal_lm" else ()), *(ONLY_CONVERSATIONS if chosen in NO_TURNS else ())]
    what = "plain text" if chosen == "text" else task
    problems = [
        Problem(f"data.{key}", f"no effect on {what}", "remove it")
        for key in unused
        if getattr(config.data, key) != DataSection.model_fields[key].default
    ]
    if task == "causal_lm" and config.adapter.method == "none":
        fix = "use lora or full; the untrained model is measured beside them"
        problems.append(Problem("adapter.method", "none trains a classification head: a language model has none", fix))
    return problems


def _examples(table: Table, data: DataSection, chosen: str) -> list[Any]:
    form = load_plugin("formats", chosen)
    columns = form.resolve_columns(table.columns, data.columns, table.source)
    examples, wrong = [], []
    for record, row in zip(table.records, table.rows, strict=True):
        try:
            examples.append(form.parse(record, columns, table.source, row, table.label_names))
        except DataError as error:
            wrong.append(error.problems[0])
    if wrong:
        first = wrong[0]
        message = f"{first.message} in {table.source}; {len(wrong):,} of {len(table.records):,} rows are like that"
        raise DataError(Problem(first.where, message, first.fix))
    return examples


WITHOUT = {"assistant": "an answer", "user": "a question", "system": "a system message", "text": "text"}


def _blank_messages(splits: dict[str, list[Conversation]]) -> list[Problem]:
    problems = []
    for name, examples in splits.items():
        for role, what in WITHOUT.items():
            rows = [e for e in examples if any(m.role == role and not m.content.strip() for m in e.messages)]
            if rows:
                problems.append(_rows_without(name, rows, len(examples), what))
    return problems


def _rows_without(split: str, rows: list[Any], total: int, what: str) -> Problem:
    shown = ", ".join(str(example.row) for example in rows[:5]) + (", ..." if len(rows) > 5 else "")
    message = f"{len(rows):,} of {total:,} rows without {what} in {rows[0].source}: row {shown}"
    return Problem(f"data.{split}", message, "fill them in or remove them")


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
        for rows, what in ((empty, "text"), (unlabelled, "a label")):
            if rows:
                problems.append(_rows_without(name, rows, len(examples), what))
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
