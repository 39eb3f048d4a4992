"""lorafy evaluate"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .arguments import Adapter, AsJson, Model, Overrides, messages, print_json
from .results import exit_unless_verified, print_results

if TYPE_CHECKING:
    from rich.console import Console


def evaluate(model: Model, overrides: Overrides = None, adapter: Adapter = None, as_json: AsJson = False) -> None:
    """Load a run from disk, merge, verify, and score it.

    On the test split, else validation. Writes RUN/eval_results.json. A recipe with several adapters: all of them, or
    one by --adapter, on the recipe's data, else each on its own run's.
    """
    from ..api import evaluate, evaluate_all, names_adapters

    if adapter is None and names_adapters(model):
        found = evaluate_all(model, overrides or [], console=messages(as_json))
        if as_json:
            print_json({"adapters": found})
        else:
            print_rows(messages(), found)
        for results in found.values():
            exit_unless_verified(results["verification"])
        return
    results = evaluate(model, overrides or [], adapter=adapter, console=messages(as_json))
    if as_json:
        print_json(results)
    else:
        print_results(messages(), results)
    exit_unless_verified(results["verification"])


def print_rows(console: Console, found: dict[str, dict[str, Any]], first: str = "adapter") -> None:
    """A line for each result, with the figures that its task is told by; a table for each task."""
    from rich.table import Table
    from rich.text import Text

    from ..metrics.numbers import count
    from ..tasks import load_kind

    for task in dict.fromkeys(results["task"] for results in found.values()):
        view = load_kind(task).view
        table = Table(
            first, *(metric.title for metric in view.brief), "scored on", "checks", box=None, header_style="bold"
        )
        for name, results in found.items():
            if results["task"] != task:
                continue
            metrics = view.flat(results["metrics"])
            intervals = ((metric, metric.interval(metrics)) for metric in view.brief)
            figures = (f"{m.write(m.value(metrics))}{f' ({i})' if i else ''}" for m, i in intervals)
            scored = f"{count(results['num_examples'])} {results['split']}"
            table.add_row(Text(name), *figures, scored, _checks(results["verification"]))
        console.print(table)


def _checks(verification: dict[str, Any] | None) -> str:
    if verification is None:
        return "not ours"
    return "passed" if verification["passed"] else "FAILED"
