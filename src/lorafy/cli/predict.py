"""lorafy predict"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..machine.printable import printable
from .arguments import Adapter, AsJson, Model, messages, print_json

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
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="run Python code that the model's folder carries")
    ] = False,
    adapter: Adapter = None,
    as_json: AsJson = False,
) -> None:
    """Classify texts: label and probability, with --json all of them."""
    from ..api import load_able
    from ..inference.tables import check_output, read_texts, write_predictions

    check_output(output_file)
    chosen = read_texts(texts, input_file, column)
    # An option of its own: predict's other words are texts, and a text must not let code run.
    overrides = ["model.trust_remote_code=true"] if trust_remote_code else []
    predictions = load_able(model, "predict", overrides, adapter).predict(chosen)
    if output_file:
        write_predictions(predictions, output_file)
        messages(as_json=True).print(f"{len(predictions):,} predictions written to {output_file}", highlight=False)
    if as_json:
        print_json({"predictions": [as_record(p) for p in predictions]})
    elif not output_file:
        print_predictions(predictions)


def as_record(prediction: Prediction) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(prediction)


def print_predictions(predictions: Iterable[Prediction]) -> None:
    for prediction in predictions:
        cut = "  (only its start was read)" if prediction.truncated else ""
        sys.stdout.write(printable(f"{prediction.shown}\t{prediction.text}{cut}\n"))
