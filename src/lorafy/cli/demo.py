"""lorafy demo"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .arguments import AsJson, Overrides, messages, print_json
from .predict import as_record, print_predictions
from .results import exit_unless_verified, print_results


def demo(
    overrides: Overrides = None,
    output_dir: Annotated[Path, typer.Option("--output-dir", help="folder that gets the run")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Fine-tune the embedded MiniLM on bundled messages: a first run.

    It evaluates, verifies and predicts too. No network, about a minute.
    """
    from .. import demo as embedded
    from ..api import load_able, train
    from ..run_directory import next_run_name

    console = messages(as_json)
    name = next_run_name(output_dir, "demo")
    run = train(embedded.recipe(output_dir), [f"run.name={name}", *(overrides or [])], console=console)
    print_results(console, run.results)
    console.print("\nFour new messages", style="bold")
    predictions = load_able(run.path, "predict").predict(embedded.MESSAGES)
    if as_json:
        shown = [as_record(prediction) for prediction in predictions]
        print_json({"run": str(run.path), "summary": run.summary, "results": run.results, "predictions": shown})
    else:
        print_predictions(predictions)
    directory = run.directory
    console.print("\nWhere everything lies", style="bold")
    for path, what in (
        (directory.report, "the report: open it in a browser"),
        (directory.adapter, "the adapter, in peft's format"),
        (directory.plots, "the pictures"),
        (directory.eval_results, "every figure above"),
    ):
        console.print(f"  {path}   {what}", highlight=False)
    console.print(f'\nNext: lorafy predict {run.path} "your own text"', highlight=False)
    exit_unless_verified(run.results["verification"])
