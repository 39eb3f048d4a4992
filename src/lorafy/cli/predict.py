"""lorafy predict"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .arguments import AsJson, Model, messages

if TYPE_CHECKING:
    from ..inference.read_texts import Prediction


def predict(
    model: Model,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT ...]", help="texts; none: one a line from stdin")
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option("--input", help="a csv, tsv, json, jsonl or parquet file, or .txt with one text a line"),
    ] = None,
    output_file: Annotated[
        Path | None, typer.Option("--output", help="write the predictions as .csv or .jsonl")
    ] = None,
    column: Annotated[str | None, typer.Option("--column", help="the input file's column of texts")] = None,
    as_json: AsJson = False,
) -> None:
    """Classify texts: label and probability, with --json all of them."""
    from ..api import load_able
    from ..inference.tables import check_output, read_texts, write_predictions

    check_output(output_file)
    chosen = read_texts(texts, input_file, column)
    predictions = load_able(model, "predict").predict(chosen)
    if output_file:
        write_predictions(predictions, output_file)
        messages(as_json=True).print(f"{len(predictions):,} predictions written to {output_file}", highlight=False)
    if as_json:
        typer.echo(json.dumps({"predictions": [as_record(p) for p in predictions]}, ensure_ascii=False, indent=2))
    elif not output_file:
        print_predictions(predictions)


def as_record(prediction: Prediction) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(prediction)


def print_predictions(predictions: Iterable[Prediction]) -> None:
    for prediction in predictions:
        cut = "  (only its start was read)" if prediction.truncated else ""
        sys.stdout.write(f"{prediction.shown}\t{prediction.text}{cut}\n")
