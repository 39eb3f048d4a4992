"""eval_results.json for a person."""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Console
from rich.table import Table

MOST_CLASSES = 30


def print_results(console: Console, results: dict[str, Any]) -> None:
    metrics = results["metrics"]
    low, high = metrics["accuracy_interval"]
    console.print(
        f"[bold]Accuracy {metrics['accuracy']:.2%}[/] (95 % interval {low:.2%} to {high:.2%}) on "
        f"{results['num_examples']:,} {results['split']} examples; always the commonest label: "
        f"{metrics['majority_accuracy']:.2%}",
        highlight=False,
    )
    low, high = metrics["f1_macro_interval"]
    console.print(
        f"F1 macro {metrics['f1_macro']:.4f} ({low:.4f} to {high:.4f}), weighted {metrics['f1_weighted']:.4f}",
        highlight=False,
    )
    if len(metrics["per_class"]) <= MOST_CLASSES:
        table = Table("label", "precision", "recall", "F1", "examples", box=None, header_style="bold")
        for name, row in metrics["per_class"].items():
            figures = (f"{row[key]:.4f}" for key in ("precision", "recall", "f1"))
            table.add_row(name, *figures, f"{row['support']:,}")
        console.print(table)
    print_verification(console, results["verification"])


def exit_unless_verified(verification: dict[str, Any] | None) -> None:
    """Exit code 1 where a check failed: a script must not go on with these files."""
    if verification is not None and not verification["passed"]:
        raise typer.Exit(1)


def print_verification(console: Console, verification: dict[str, Any] | None) -> None:
    if verification is None:
        console.print("Not verified: this model was not trained by lorafy.", style="dim")
        return
    for check in verification["checks"]:
        mark = "[green]ok    [/]" if check["passed"] else "[bold red]FAILED[/]"
        figure = "inf" if check["figure"] is None else f"{check['figure']:.1e}"
        # Checksums are equal or not; the others have a figure.
        figures = f": {figure} (limit {check['tolerance']:.0e})" if check["tolerance"] else ""
        console.print(f"{mark} {check['meaning']}{figures}", highlight=False)
    if not verification["passed"]:
        console.print("[bold red]Verification failed: do not use these files.[/]")
