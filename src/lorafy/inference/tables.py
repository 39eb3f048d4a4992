"""Texts to classify from arguments, a file or stdin; predictions into a file."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

from ..config.schema import Columns, DataSection
from ..data.sources import read_source
from ..formats import labelled
from ..run_directory import write_text
from ..types import ConfigError, DataError, Problem
from .read_texts import TextPair


def read_texts(texts: Sequence[str] | None, input_file: Path | None, column: str | None) -> list[TextPair]:
    """The texts, from exactly one place: arguments, file or stdin. An empty line of stdin or of a .txt file is none."""
    if texts and input_file:
        raise ConfigError(Problem("predict", "texts and --input are both given", "give one of them"))
    is_table = input_file is not None and input_file.suffix.lower() != ".txt"
    if column is not None and not is_table:
        raise ConfigError(Problem("--column", "no effect without a table as --input", "remove it"))
    if texts:
        return list(texts)
    found: list[TextPair]
    if input_file is None:
        if sys.stdin.isatty():
            print("One text a line; Ctrl-D (Windows: Ctrl-Z, Enter) ends.", file=sys.stderr)
        found = _lines(sys.stdin.buffer.read(), "stdin")
    elif is_table:
        found = _read_column(input_file, column)
    elif input_file.is_file():
        found = _lines(input_file.read_bytes(), str(input_file))
    else:
        raise DataError(Problem("--input", f"no such file: {input_file}"))
    if not found:
        raise DataError(Problem(str(input_file or "stdin"), "no text was given", "one text a line"))
    return found


def _lines(raw: bytes, where: str) -> list[TextPair]:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(Problem(where, f"not UTF-8, line {line}", "save it as UTF-8")) from error
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]


def _read_column(path: Path, column: str | None) -> list[TextPair]:
    position = int(column) if column is not None and column.isdecimal() else column
    config = DataSection(train=str(path.resolve()), columns=Columns(text=position))
    try:
        table = read_source(config.train, config, "train")["train"]
        columns = labelled.resolve_columns(table.columns, config.columns, table.source, answered=False)
        examples = [
            labelled.parse(record, columns, table.source, row, table.label_names)
            for record, row in zip(table.records, table.rows, strict=True)
        ]
    except DataError as error:
        options = {"data.train": "--input", "data.columns.text": "--column"}
        raise DataError(
            Problem(
                options.get(problem.where, problem.where),
                problem.message,
                problem.fix and problem.fix.replace("data.columns.text=", "--column "),
            )
            for problem in error.problems
        ) from error
    return [e.text if e.text_pair is None else (e.text, e.text_pair) for e in examples]


def check_output(path: Path | None) -> None:
    """Refuses a file that `write_predictions` could not write, before the work."""
    if path is not None and path.suffix.lower() not in (".jsonl", ".csv"):
        raise ConfigError(Problem("--output", f"unknown kind of file: {path}", "name it .csv or .jsonl"))


def write_predictions(predictions: Sequence[Any], path: Path) -> None:
    """Writes predictions of any kind: .jsonl holds all that is in them, .csv their `cells`, safe in a spreadsheet."""
    check_output(path)
    if path.suffix.lower() == ".jsonl":
        write_text(path, "".join(json.dumps(asdict(p), ensure_ascii=False) + "\n" for p in predictions))
        return
    buffer = StringIO(newline="")
    writer = csv.DictWriter(buffer, list(predictions[0].cells), lineterminator="\n")
    writer.writerow({name: spreadsheet_cell(name) for name in predictions[0].cells})
    writer.writerows({name: spreadsheet_cell(cell) for name, cell in p.cells.items()} for p in predictions)
    write_text(path, buffer.getvalue())


FORMULA = tuple("=+-@\t\r\n＝＋－＠")
"""A spreadsheet computes a cell that begins so (OWASP, "CSV Injection"), and a formula can fetch and send."""


def spreadsheet_cell(value: Any) -> Any:
    """The value as a spreadsheet shows it: a text that would be a formula gets a quote in front. Numbers stay."""
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
