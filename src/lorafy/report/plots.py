"""The pictures of a run, from its files only, so that they can be drawn again at any time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..run_directory import RunDirectory, read_json, read_jsonl
from .compare_plot import draw_compare
from .confusion import draw_confusion
from .curves import draw_accuracy, draw_learning_rate, draw_loss
from .hardware_plot import draw_hardware
from .language import is_language_model
from .series import metric


@dataclass(frozen=True, slots=True)
class Drawn:
    """The PNGs that were written, and sentences for the user about how."""

    paths: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def draw_plots(run: RunDirectory) -> Drawn:
    """Writes run.plots/*.png. A plot whose data are not there is left out."""
    lines = read_jsonl(run.metrics)
    summary = read_if_there(run.summary)
    results = read_if_there(run.eval_results)
    best_step, accuracy = summary.get("best_step"), "accuracy"
    if is_language_model(summary, results, lines=lines):
        best_step, accuracy = best_step or lowest_loss(lines), "token accuracy"
    paths: list[Path | None] = [
        draw_loss(lines, best_step, run.plots / "loss.png"),
        draw_accuracy(lines, best_step, run.plots / "accuracy.png", accuracy),
        draw_learning_rate(lines, run.plots / "learning_rate.png"),
        draw_hardware(read_jsonl(run.hardware), summary, run.plots / "hardware.png"),
    ]
    notes: list[str | None] = []
    if results.get("labels") and results["metrics"].get("confusion_matrix"):
        matrix, note = draw_confusion(results, run.plots / "confusion_matrix.png")
        paths.append(matrix)
        notes.append(note)
    rows = read_if_there(run.compare_results).get("rows")
    if rows:
        comparison, note = draw_compare(rows, run.plots / "compare.png")
        paths.append(comparison)
        notes.append(note)
    said = [note for note in notes if note is not None]
    return Drawn([path for path in paths if path is not None], list(dict.fromkeys(said)))


def lowest_loss(lines: list[dict[str, Any]]) -> int | None:
    """The step to be kept as it stands, while the summary that names it is not written yet."""
    validation = metric(lines, "validation", "loss")
    return int(validation.x[validation.y.argmin()]) if len(validation) else None


def read_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
