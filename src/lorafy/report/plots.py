"""The pictures of a run, from its files only, so that they can be drawn again at any time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..run_directory import RunDirectory, read_json, read_jsonl
from .compare_plot import draw_compare
from .curves import draw_learning_rate, draw_loss, draw_score
from .hardware_plot import draw_hardware
from .ranks import draw_ranks
from .series import metric
from .view import Picture, View


@dataclass(frozen=True, slots=True)
class Drawn:
    """The PNGs that were written."""

    pictures: list[Picture] = field(default_factory=list)

    @property
    def paths(self) -> list[Path]:
        """Where the PNGs lie."""
        return [picture.path for picture in self.pictures]

    @property
    def notes(self) -> list[str]:
        """Sentences for the user about how the plots were drawn, each once."""
        return list(dict.fromkeys(picture.note for picture in self.pictures if picture.note is not None))


def draw_plots(run: RunDirectory, view: View) -> Drawn:
    """Writes run.plots/*.png. A plot whose data are not there is left out."""
    lines = read_jsonl(run.metrics)
    summary, results = read_if_there(run.summary), read_if_there(run.eval_results)
    best_step = summary.get("best_step") or best_so_far(lines, view)
    paths = [draw_loss(lines, best_step, run.plots / "loss.png")]
    if view.curve is not None:
        paths.append(draw_score(lines, best_step, run.plots / f"{view.curve.key}.png", view.curve))
    paths.append(draw_learning_rate(lines, run.plots / "learning_rate.png"))
    paths.append(draw_hardware(read_jsonl(run.hardware), summary, run.plots / "hardware.png"))
    pictures = [Picture(path, view.caption(path.stem)) for path in paths if path is not None]
    ranks = draw_ranks(read_jsonl(run.ranks), summary.get("num_steps"), run.plots / "ranks.png")
    if ranks is not None:
        pictures.append(Picture(ranks, view.caption("ranks"), wide=True))
    if results:
        pictures += view.draw(results, run.plots)
    rows = read_if_there(run.compare_results).get("rows")
    if rows:
        path, note = draw_compare(rows, run.plots / "compare.png", view)
        if path is not None:
            pictures.append(Picture(path, view.caption("compare"), note, wide=True))
    return Drawn(pictures)


def best_so_far(lines: list[dict[str, Any]], view: View) -> int | None:
    """The step to be kept as it stands, while the summary that names it is not written yet: where the loss decides."""
    validation = metric(lines, "validation", "loss")
    return int(validation.x[validation.y.argmin()]) if view.best_by_loss and len(validation) else None


def read_if_there(path: Path) -> dict[str, Any]:
    """A JSON file's content; {} where there is none."""
    return read_json(path) if path.is_file() else {}
