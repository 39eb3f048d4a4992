"""lorafy compare"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from .arguments import AsJson, Overrides, Recipe, messages, print_json


def compare(recipe: Recipe, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Train head only, LoRA and full fine-tuning on the same seed, data and evaluation, and show one table."""
    from ..api import load_recipe
    from ..comparison_run import run_comparison

    console = messages(as_json)
    config, stem = load_recipe(recipe, overrides or [])
    directory, rows = run_comparison(config, stem, console)
    print_rows(console, rows)
    console.print(f"Everything lies in {directory.path}; the report: {directory.report}", highlight=False)
    if as_json:
        print_json({"directory": str(directory.path), "rows": rows})


def print_rows(console: Console, rows: list[dict[str, Any]]) -> None:
    from ..report.numbers import count, duration, method, size

    names = (
        "method",
        "accuracy (95 % interval)",
        "F1 macro",
        "trainable",
        "share",
        "memory",
        "time",
        "on disk",
        "rate",
    )
    table = Table(*names, box=None, header_style="bold")
    for row in rows:
        low, high = row["accuracy_interval"]
        table.add_row(
            method(row["method"]),
            f"{row['accuracy']:.2%} ({low:.2%} to {high:.2%})",
            f"{row['f1_macro']:.4f}",
            count(row["trainable_parameters"]),
            f"{row['trainable_parameters'] / row['total_parameters']:.2%}",
            size(row["peak_memory_bytes"]),
            duration(row["seconds"]),
            size(row["bytes_on_disk"]),
            f"{row['learning_rate']:g}",
        )
    console.print(table)
    console.print(f"Scored on {rows[0]['num_examples']:,} {rows[0]['split']} examples.", highlight=False)
