"""eval_results.json for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

MOST_CLASSES = 30
SHOWN_SAMPLES, MOST_CHARACTERS = 3, 200
LANGUAGE_METRICS = (
    ("loss per answer token", "loss", "lower"),
    ("perplexity", "perplexity", "lower"),
    ("token accuracy", "token_accuracy", "higher"),
    ("exact match", "exact_match", "higher"),
    ("BLEU (0 to 100)", "bleu", "higher"),
    ("chrF (0 to 100)", "chrf", "higher"),
    ("ROUGE-L", "rouge_l", "higher"),
)
SHARES = ("token_accuracy", "exact_match", "rouge_l")


def print_results(console: Console, results: dict[str, Any]) -> None:
    if results["task"] == "causal_lm":
        print_language_results(console, results)
    else:
        print_class_results(console, results)
    print_verification(console, results["verification"])


def print_language_results(console: Console, results: dict[str, Any]) -> None:
    """The tuned model beside its base, then a question with both answers."""
    from rich.table import Table
    from rich.text import Text

    tuned, base = results["metrics"], results["base"]
    low, high = tuned["perplexity_interval"]
    console.print(
        f"[bold]Perplexity {tuned['perplexity']:.4g}[/] (95 % interval {low:.4g} to {high:.4g}) on "
        f"{tuned['num_target_tokens']:,} answer tokens of {results['num_examples']:,} {results['split']} examples",
        highlight=False,
    )
    models = {"this model": tuned} if base is None else {"base": base, "tuned": tuned}
    table = Table("", *models, "", box=None, header_style="bold")
    for name, key, better in LANGUAGE_METRICS:
        figures = [_figure(metrics, key) for metrics in models.values()]
        if any(figures):
            table.add_row(name, *(figure or "-" for figure in figures), f"[dim]{better} is better[/]")
    console.print(table)
    generation = tuned["generation"]
    if generation is not None:
        console.print(
            f"{generation['num_prompts']} questions answered, {generation['ended']:.0%} ended by themselves, "
            f"{generation['looped']:.0%} stopped in a loop; {generation['tokens_per_second']:g} tokens/s.",
            highlight=False,
        )
    for sample in results["samples"][:SHOWN_SAMPLES]:
        console.print(Text(f"Q {_one_line(sample['prompt'])}", "bold"))
        if sample["base"] is not None:
            console.print(Text(f"  base:  {_one_line(sample['base'])}", "dim"))
        name = "answer" if sample["base"] is None else "tuned"
        console.print(Text(f"  {name}: {_one_line(sample['tuned'])}"))


def _figure(metrics: dict[str, Any] | None, key: str) -> str | None:
    section = metrics if metrics is None or key in metrics else metrics["generation"]
    if section is None:
        return None
    return f"{section[key]:.2%}" if key in SHARES else f"{section[key]:.4g}"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]} ..."


def print_class_results(console: Console, results: dict[str, Any]) -> None:
    from rich.table import Table

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
