"""Texts to classify from arguments, a file or stdin; predictions into a file."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from io import StringIO
from pathlib import Path

from ..config.schema import Columns, DataSection
from ..data.sources import read_source
from ..formats import labelled
from ..run_directory import write_text
from ..types import ConfigError, DataError, Problem
from .classify import Prediction

Text = str | tuple[str, str]


def read_texts(texts: Sequence[str] | None, input_file: Path | None, column: str | None) -> list[Text]:
    """From exactly one place; an empty line of stdin or of a .txt file is no text."""
    if texts and input_file:
        raise ConfigError(Problem("predict", "texts and --input are both given", "give one of them"))
    if texts:
        return list(texts)
    if input_file is None:
        if sys.stdin.isatty():
            print("One text a line; Ctrl-D (Windows: Ctrl-Z, Enter) ends.", file=sys.stderr)
        sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        found: list[Text] = [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
    elif input_file.suffix == ".txt" and input_file.is_file():
        found = [line for line in input_file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    else:
        found = _read_column(input_file, column)
    if not found:
        raise DataError(Problem(str(input_file or "stdin"), "no text was given", "one text a line"))
    return found


def _read_column(path: Path, column: str | None) -> list[Text]:
    config = DataSection(train=str(path.resolve()), columns=Columns(text=column))
    table = read_source(config.train, config, "train")["train"]
    columns = labelled.resolve_columns(table.columns, config.columns, table.source, labelled=False)
    examples = [
        labelled.parse(record, columns, table.source, row, table.label_names)
        for record, row in zip(table.records, table.rows, strict=True)
    ]
    return [e.text if e.text_pair is None else (e.text, e.text_pair) for e in examples]


def write_predictions(predictions: Sequence[Prediction], path: Path) -> None:
    """.jsonl holds all probabilities, .csv a column for each."""
    if path.suffix == ".jsonl":
        write_text(path, "".join(json.dumps(asdict(p), ensure_ascii=False) + "\n" for p in predictions))
        return
    if path.suffix != ".csv":
        raise ConfigError(Problem("--output", f"unknown kind of file: {path}", "name it .csv or .jsonl"))
    names = list(predictions[0].probabilities)
    buffer = StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["text", "label", "probability", *(f"probability_{name}" for name in names)])
    for prediction in predictions:
        shares = [f"{value:.6f}" for value in prediction.probabilities.values()]
        writer.writerow([prediction.text, prediction.label, f"{prediction.probability:.6f}", *shares])
    write_text(path, buffer.getvalue())
