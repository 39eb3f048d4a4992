"""lorafy compare"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .arguments import AsJson, Overrides, Recipe, messages, print_json

if TYPE_CHECKING:
    from rich.console import Console


def compare(recipe: Recipe, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """LoRA beside full fine-tuning and head only (or the base).

    The same seed, data and evaluation; one table.
    """
    from ..api import load_recipe
    from ..workflows.compare import run_comparison

    console = messages(as_json)
    config, stem = load_recipe(recipe, overrides or [])
    directory, rows = run_comparison(config, stem, console)
    print_rows(console, rows)
    console.print(f"Everything lies in {directory.path}; the report: {directory.report}", highlight=False)
    if as_json:
        print_json({"directory": str(directory.path), "rows": rows})


def print_rows(console: Console, rows: list[dict[str, Any]]) -> None:
    """A line a method: how good it is, what it cost."""
    from rich.table import Table

    from ..metrics.numbers import count, duration, size
    from ..tasks import load_kind

    metrics = load_kind(rows[0]["task"]).view.brief
    names = ("method", *(metric.title for metric in metrics))
    table = Table(*names, "trainable", "share", "memory", "time", "on disk", "rate", box=None, header_style="bold")
    for row in rows:
        intervals = ((metric, metric.interval(row)) for metric in metrics)
        table.add_row(
            row["title"],
            *(f"{m.write(m.value(row))}{f' ({interval})' if interval else ''}" for m, interval in intervals),
            count(row["trainable_parameters"]),
            f"{row['trainable_parameters'] / row['total_parameters']:.2%}",
            size(row["peak_memory_bytes"]),
            duration(row["seconds"]),
            size(row["bytes_on_disk"]),
            "" if row["learning_rate"] is None else f"{row['learning_rate']:g}",
        )
    console.print(table)
    scored = f"Scored on {rows[0]['num_examples']:,} {rows[0]['split']} examples; an interval is of 95 %."
    console.print(scored, highlight=False)
