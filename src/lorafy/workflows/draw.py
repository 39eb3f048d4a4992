"""The pictures and the page of a run directory, as its task shows them."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from ..report.html import write_report
from ..report.plots import draw_plots, read_if_there
from ..report.view import UNKNOWN, View
from ..run_directory import RunDirectory
from ..tasks import load_kind


def draw_report(run: RunDirectory, console: Console) -> None:
    """Draws plots/ and writes report.html from the run's files."""
    view = view_of(run)
    drawn = draw_plots(run, view)
    for note in drawn.notes:
        console.print(Text(note, "yellow"))
    write_report(run, view, drawn)


def view_of(run: RunDirectory) -> View:
    """The view of the task that the run's files name."""
    rows = read_if_there(run.compare_results).get("rows", [])
    files = [read_if_there(run.summary), read_if_there(run.eval_results), read_if_there(run.preflight), *rows]
    task = next((file["task"] for file in files if file.get("task")), None)
    return UNKNOWN if task is None else load_kind(task).view
