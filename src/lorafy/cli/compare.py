"""lorafy compare"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .arguments import AsJson, Recipe, messages, print_json, settings

if TYPE_CHECKING:
    from rich.console import Console

    from ..metrics import Metric


def compare(
    context: typer.Context,
    recipe: Recipe,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[section.key=value ...]", help="settings over the recipe's, for all methods"),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--methods",
            metavar="NAME ...",
            help="the methods, as docs/methods.md names them, with spaces or commas between; "
            "default: LoRA, full fine-tuning, and head only where there is a head",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="train each method by so many seeds")] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with a comparison; RECIPE is its folder, nothing else is said")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Methods side by side: LoRA beside full fine-tuning and head only (or the base), or those that you name.

    The same seeds, data and evaluation; one table, one picture.
    """
    from .. import api
    from ..run_directory import RunDirectory

    console = messages(as_json)
    names, words = more_names(methods, overrides or [])
    chosen = settings(context, words) or []
    found = api.compare(recipe, chosen, methods=names, num_seeds=seeds, resume=resume, console=console)
    directory, failed = RunDirectory(found["directory"]), found["failed"]
    if found["rows"]:
        print_rows(console, found["rows"])
    console.print(f"Everything lies in {directory.path}; the report: {directory.report}", highlight=False)
    if as_json:
        print_json(found)
    if failed:
        console.print(f"Not trained: {', '.join(failed)}; see above", style="red", highlight=False)
        console.print(f"Try these again: lorafy compare {directory.path} --resume", highlight=False)
        raise typer.Exit(2)


def more_names(methods: list[str] | None, words: list[str]) -> tuple[list[str] | None, list[str]]:
    """The names behind --methods, and the settings. click gives an option one word: the others arrive among the
    settings, where a word without `=` that belongs to no option is a name."""
    if methods is None:
        return None, words
    names, rest = [name for word in methods for name in word.split(",") if name], list[str]()
    for before, word in zip(["", *words], words, strict=False):
        is_value = before.startswith("--") and "=" not in before
        if "=" in word or word.startswith("--") or is_value:
            rest.append(word)
        else:
            names += [name for name in word.split(",") if name]
    return names, rest


def print_rows(console: Console, rows: list[dict[str, Any]]) -> None:
    """A line a method: how good it is, what it cost."""
    from rich.table import Table

    from ..metrics.numbers import count, duration, size
    from ..tasks import load_kind

    metrics = load_kind(rows[0]["task"]).view.brief
    first = next(row for row in rows if row["method"] != "base")
    against = [f"against {first['title']}"] if any(row.get("difference") for row in rows) else []
    names = ("method", *(metric.title for metric in metrics), *against)
    table = Table(*names, "trainable", "share", "memory", "time", "on disk", "rate", box=None, header_style="bold")
    for row in rows:
        intervals = ((metric, metric.interval(row)) for metric in metrics)
        table.add_row(
            row["title"],
            *(f"{m.write(m.value(row))}{f' ({interval})' if interval else ''}" for m, interval in intervals),
            *(metrics[0].difference(row.get("difference")) for _ in against),
            count(row["trainable_parameters"]),
            f"{row['trainable_parameters'] / row['total_parameters']:.2%}",
            size(row["peak_memory_bytes"]),
            duration(row["seconds"]),
            size(row["bytes_on_disk"]),
            "" if row["learning_rate"] is None else f"{row['learning_rate']:g}",
        )
    console.print(table)
    console.print(read_so(rows, metrics[0]), highlight=False)


def read_so(rows: list[dict[str, Any]], metric: Metric) -> str:
    """What the figures are of."""
    scored = f"Scored on {rows[0]['num_examples']:,} {rows[0]['split']} examples"
    num_seeds = max(len(row.get("seeds", [])) for row in rows)
    if num_seeds < 2:
        return f"{scored}; an interval is of 95 %, over the examples."
    return (
        f"{scored}. Means over {num_seeds} seeds; an interval is of 95 %, over the seeds. The difference in "
        f"{metric.title} is taken seed by seed: where its interval holds 0, this is no evidence of any."
    )
