"""eval_results.json for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ..machine.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from ..report.sections import Cell, Samples, Table

SHOWN_SAMPLES, MOST_CHARACTERS = 3, 200


def print_results(console: Console, results: dict[str, Any]) -> None:
    """The result in a sentence, every figure of it, and the checks; what is shown is the task's."""
    from rich.text import Text

    from ..report.ranks import rank_sections
    from ..report.sections import Samples
    from ..tasks import load_kind

    view = load_kind(results["task"]).view
    console.print(Text(f"{view.said(results)}.", "bold"))
    if view.detail(results):
        console.print(Text(view.detail(results)))
    sections = [*view.results(results), *rank_sections(results)]
    if not view.tabulated:
        metrics = view.flat(results["metrics"])
        for metric in view.metrics[1:]:
            interval = metric.interval(metrics)
            figure = metric.write(metric.value(metrics))
            console.print(Text(f"{metric.title} {figure}" + (f" (95 % interval {interval})" if interval else "")))
    for section in sections:
        if isinstance(section, Samples):
            print_samples(console, section)
        elif len(section.rows) <= section.most_on_terminal:
            print_table(console, section)
    print_verification(console, results["verification"])


def print_table(console: Console, table: Table) -> None:
    """Prints a table with its notes, without its long explanations; the best figure of a row is green."""
    import rich.table
    from rich.text import Text

    kept = [place for place, column in enumerate(table.columns) if column.kind != "meaning"]
    shown = rich.table.Table(box=None, header_style="bold")
    for place in kept:
        column = table.columns[place]
        shown.add_column(column.title, justify="right" if column.kind == "number" else "left")
    for row in table.rows:
        cells = [row[place] for place in kept]
        shown.add_row(*(Text(printable(_with_below(cell)), "green" if cell.best else "") for cell in cells))
    if table.note:
        console.print(Text(table.note, "dim"))
    console.print(shown)
    if table.below:
        console.print(Text(table.below, "dim"))


def _with_below(cell: Cell) -> str:
    return f"{cell.text} ({cell.under})" if cell.under else cell.text


def print_samples(console: Console, samples: Samples) -> None:
    """The first prompts, with what each model said."""
    from rich.text import Text

    for sample in samples.samples[:SHOWN_SAMPLES]:
        console.print(Text(f"Q {_one_line(sample.prompt)}", "bold"))
        if sample.pictures:
            names = ", ".join(picture.name for picture in sample.pictures)
            console.print(Text(f"  shown: {_one_line(names)}", "dim"))
        for said in sample.columns:
            if said.kind != "reference":
                console.print(Text(f"  {said.kind}: {_one_line(said.text)}", "dim" if said.kind == "base" else ""))


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]} ..."


def exit_unless_verified(verification: dict[str, Any] | None) -> None:
    """Exit code 1 where a check failed: a script must not go on with these files."""
    if verification is not None and not verification["passed"]:
        raise typer.Exit(1)


def print_verification(console: Console, verification: dict[str, Any] | None) -> None:
    from rich.text import Text

    if verification is None:
        console.print("Not verified: a model as it comes has no adapter.", style="dim")
        return
    for check in verification["checks"]:
        mark = ("ok    ", "green") if check["passed"] else ("FAILED", "bold red")
        figure = "inf" if check["figure"] is None else f"{check['figure']:.1e}"
        # Checksums are equal or not; the others have a figure.
        figures = f": {figure} (limit {check['tolerance']:.0e})" if check["tolerance"] else ""
        console.print(Text.assemble(mark, f" {check['meaning']}{figures}"))
    if not verification["passed"]:
        console.print(Text("Verification failed: do not use these files.", "bold red"))
