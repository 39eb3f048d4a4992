"""From the recipe's data section to the examples of train, validation and test."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..config.schema import DataSection, RunConfig
from ..contracts import Records
from ..plugins import load_plugin
from ..types import DataError, Finding, Problem
from .sources import Table, read_tables
from .splits import count_labels, downsample, sample_stratified, split_stratified

SHOWN_KINDS, SHOWN_ROWS = 10, 20
"""So many kinds of mistakes in rows are told of, and so many rows of each are named."""


@dataclass
class Corpus:
    """The examples of each split (absent where there is none), read in one format, for one task.

    `label_names` stand in the order of their indices; none where there are no classes. `notes` say what was sampled,
    cut or left out on the way: rows in = rows kept + rows named there.
    """

    splits: dict[str, list[Any]]
    label_names: list[str]
    format: str
    task: str
    records: Records
    notes: list[Finding] = field(default_factory=list)

    @property
    def scored_split(self) -> str:
        """Name of the split that results are measured on: test, else validation (absent where nothing was held out)."""
        return "test" if "test" in self.splits else "validation"

    def fingerprint(self, split: str) -> str:
        """sha256 over all that a split's examples say, to notice that data changed since training."""
        digest = hashlib.sha256()
        for example in self.splits[split]:
            digest.update(repr(example.content).encode())
        return digest.hexdigest()

    def summary(self) -> dict[str, Any]:
        """For each split: its rows, how many of them each class has, and its fingerprint."""
        return {
            name: {"rows": len(examples), "labels": count_labels(examples), "sha256": self.fingerprint(name)}
            for name, examples in self.splits.items()
        }


def choose_format(data: DataSection, names: Sequence[str], allowed: Sequence[str]) -> str:
    """The recipe's format, else the first of those that may be meant which recognises the columns."""
    if data.format != "auto":
        return data.format
    in_order = sorted(allowed, key=lambda name: load_plugin("formats", name).PRECEDENCE)
    found = (name for name in in_order if load_plugin("formats", name).recognises(names, data.columns))
    return next(found, "completion" if "completion" in allowed else in_order[0])


def _formats(config: RunConfig, generative: bool, tasks: Mapping[str, Records]) -> list[str]:
    """Names of the formats that may be meant: those of the task that the recipe names; else of every task, without
    those that take a model which writes where the model does not or where a label is named."""
    wanted = list(tasks.values()) if config.task == "auto" else [tasks[config.task]]
    if config.task == "auto" and (config.data.columns.label is not None or not generative):
        wanted = [records for records in wanted if not records.needs_writer]
    return sorted({form for records in wanted for form in records.formats})


Choose = Callable[[str, Sequence[Any]], tuple[str, str | None]]
"""A format and the training split's examples, their labels raw -> the task, and why, if that is to be said."""


def load_corpus(
    config: RunConfig,
    generative: bool,
    tasks: Mapping[str, Records],
    choose: Choose,
    untrainable: Callable[[str], list[Problem]],
) -> Corpus:
    """Reads, names, samples, splits and balances. generative: whether the model was made to write text. tasks: what
    each task learns from. untrainable: what else of the recipe is wrong for a task.

    Raises DataError and ConfigError with every mistake found on the way.
    """
    tables, problems = read_tables(config.data)
    names = tables["train"].columns if "train" in tables else []
    form = choose_format(config.data, names, _formats(config, generative, tasks))
    broken: set[str] = set()
    raw = _of_each(tables, lambda name: _examples(tables[name], config.data, form), problems, broken)
    task, reason = choose(form, raw.get("train", []))
    records = tasks[task]
    problems += [*_without_effect(config, form, task, tasks), *untrainable(task)]
    if form not in records.formats:
        raise DataError(problems)
    readable = {name: raw[name] for name in raw if records.row_by_row or name not in broken}
    splits = _of_each(
        readable,
        lambda name: _each(raw[name], lambda example: records.accept(example, config), tables[name].source),
        problems,
        broken,
    )
    splits = {name: splits[name] for name in splits if records.row_by_row or name not in broken}
    named = _names_of_classes(tables["train"], config.data, form) if "train" in splits else None
    settled = records.settle(splits, named, config)
    problems += [problem for problem in settled.problems if problem not in problems]
    if problems:
        raise DataError(problems)
    notes = [] if reason is None else [Finding("task", "note", f"task: {task}, because {reason}")]
    notes += [*settled.notes, *_make_splits(splits, config)]
    return Corpus(splits, settled.label_names, form, task, records, notes)


Read = tuple[list[Any], list[Problem]]
"""What could be read, and what is wrong with the rest."""


def _of_each(
    names: Iterable[str], read: Callable[[str], Read], problems: list[Problem], broken: set[str]
) -> dict[str, list[Any]]:
    """What `read` gives for each split, absent where it refuses all of it; what is wrong is added to `problems` once,
    the splits that lack something to `broken`."""
    found = {}
    for name in names:
        try:
            found[name], wrong = read(name)
        except DataError as error:
            wrong = error.problems
        problems += [problem for problem in wrong if problem not in problems]
        if wrong:
            broken.add(name)
    return found


def _without_effect(config: RunConfig, form: str, task: str, tasks: Mapping[str, Records]) -> list[Problem]:
    """Problems of a format that the task does not learn from, and of settings that mean something to other tasks
    alone."""
    if form not in tasks[task].formats:
        others = " or ".join(name for name, records in tasks.items() if form in records.formats)
        message = f"{task} does not learn from data in the format {form}, but {others} does"
        return [Problem("task", message, "remove task, or name columns and data.format")]
    used = tasks[task].uses(form)
    known = {key for records in tasks.values() for other in records.formats for key in records.uses(other)}
    return [
        Problem(f"data.{key}", f"no effect on {task} with the format {form}", "remove it")
        for key, about in DataSection.model_fields.items()
        if key in known and key not in used and getattr(config.data, key) != about.default
    ]


def _examples(table: Table, data: DataSection, form: str) -> Read:
    """Each record as the format reads it, its label as the file has it."""
    plugin = load_plugin("formats", form)
    columns = plugin.resolve_columns(table.columns, data.columns, table.source)
    if data.columns.images is not None and columns.images is None:
        raise DataError(Problem("data.columns.images", f"no effect on data in the format {form}", "remove it"))
    numbered = [_Record(row, record) for record, row in zip(table.records, table.rows, strict=True)]
    return _each(
        numbered, lambda one: plugin.parse(one.fields, columns, table.source, one.row, table.label_names), table.source
    )


def _names_of_classes(table: Table, data: DataSection, form: str) -> list[str] | None:
    """The names that the data set itself gives to the class indices of its label column (ClassLabel)."""
    columns = load_plugin("formats", form).resolve_columns(table.columns, data.columns, table.source)
    return table.label_names.get(str(columns.label))


class _Record(NamedTuple):
    row: int
    fields: Mapping[str, Any]


def _each(items: Sequence[Any], read: Callable[[Any], Any], source: str) -> Read:
    """Each item as `read` gives it, without those that it refuses: of these the first of each kind of mistake, with the
    other rows and how many there are."""
    found: list[Any] = []
    kinds: dict[tuple[str, str | None], list[tuple[int, Problem]]] = {}
    for item in items:
        try:
            found.append(read(item))
        except DataError as error:
            wrong = error.problems[0]
            kinds.setdefault((wrong.where, wrong.fix), []).append((item.row, wrong))
    of_all = f"of {len(items):,} rows are like that"
    return found, [_of_one_kind(wrong, source, of_all) for wrong in list(kinds.values())[:SHOWN_KINDS]]


def _of_one_kind(wrong: Sequence[tuple[int, Problem]], source: str, of_all: str) -> Problem:
    first = wrong[0][1]
    others = [f"{row}" for row, _ in wrong[1:SHOWN_ROWS]] + ["..."] * (len(wrong) > SHOWN_ROWS)
    also = f", and so row {', '.join(others)}" if others else ""
    return Problem(first.where, f"{first.message} in {source}{also}; {len(wrong):,} {of_all}", first.fix)


def _make_splits(splits: dict[str, list[Any]], config: RunConfig) -> list[Finding]:
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
