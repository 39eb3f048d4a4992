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
    from ..comparison_run import run_comparison

    console = messages(as_json)
    config, stem = load_recipe(recipe, overrides or [])
    directory, rows = run_comparison(config, stem, console)
    print_rows(console, rows)
    console.print(f"Everything lies in {directory.path}; the report: {directory.report}", highlight=False)
    if as_json:
        print_json({"directory": str(directory.path), "rows": rows})


def print_rows(console: Console, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from ..report.numbers import count, duration, method, size

    is_language = rows[0]["task"] == "causal_lm"
    quality = ("perplexity (95 % interval)", "chrF") if is_language else ("accuracy (95 % interval)", "F1 macro")
    names = ("method", *quality, "trainable", "share", "memory", "time", "on disk", "rate")
    table = Table(*names, box=None, header_style="bold")
    for row in rows:
        table.add_row(
            method(row["method"]),
            *(_language_quality(row) if is_language else _class_quality(row)),
            count(row["trainable_parameters"]),
            f"{row['trainable_parameters'] / row['total_parameters']:.2%}",
            size(row["peak_memory_bytes"]),
            duration(row["seconds"]),
            size(row["bytes_on_disk"]),
            "" if row["learning_rate"] is None else f"{row['learning_rate']:g}",
        )
    console.print(table)
    console.print(f"Scored on {rows[0]['num_examples']:,} {rows[0]['split']} examples.", highlight=False)


def _class_quality(row: dict[str, Any]) -> tuple[str, str]:
    low, high = row["accuracy_interval"]
    return f"{row['accuracy']:.2%} ({low:.2%} to {high:.2%})", f"{row['f1_macro']:.4f}"


def _language_quality(row: dict[str, Any]) -> tuple[str, str]:
    low, high = row["perplexity_interval"]
    chrf = "" if row["chrf"] is None else f"{row['chrf']:.1f}"
    return f"{row['perplexity']:.4g} ({low:.4g} to {high:.4g})", chrf
