"""What the machine did while it trained: one panel per figure, over the same seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from ..metrics import numbers
from .series import Series, samples, smoothed
from .style import BLUE, GREEN, MUTED, PURPLE, VERMILLION, headline, new_figure, plot_style, save

SMOOTH_FROM = 60


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure of hardware.jsonl: its key, its axis, what it is divided by for that, and its colour."""

    key: str
    ylabel: str
    unit: float
    colour: str


PANELS = (
    Panel("cpu_percent", "processor (%)", 1.0, BLUE),
    Panel("memory_bytes", "memory (GiB)", 2**30, GREEN),
    Panel("gpu_percent", "GPU (%)", 1.0, VERMILLION),
    Panel("gpu_memory_bytes", "GPU memory (GiB)", 2**30, PURPLE),
)


def draw_hardware(lines: list[dict[str, Any]], summary: dict[str, Any], path: Path) -> Path | None:
    """Draws a panel for each figure that was sampled; None where none was."""
    sampled = {panel.key: samples(lines, panel.key) for panel in PANELS}
    panels = [panel for panel in PANELS if len(sampled[panel.key])]
    if not panels:
        return None
    with plot_style():
        figure = new_figure(6.8, 1.0 + 1.6 * len(panels))
        column = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, panel in zip(column, panels, strict=True):
            draw_panel(axes, panel, sampled[panel.key])
        if panels[0].key == "cpu_percent" and summary.get("num_threads"):
            ceiling(column[0], summary["num_threads"])
        column[-1].set_xlabel("seconds of training")
        column[-1].set_xlim(left=0)
        figure.align_ylabels(column)
        headline(figure, *hardware_title(sampled))
        return save(figure, path)


def draw_panel(axes: Axes, panel: Panel, series: Series) -> None:
    """Draws one figure over seconds; a share from SMOOTH_FROM points on with its smoothed line."""
    y = series.y / panel.unit
    if panel.key.endswith("_percent") and len(series) >= SMOOTH_FROM:
        mean = smoothed(Series(series.x, y))
        axes.plot(series.x, y, color=panel.colour, linewidth=1.0, alpha=0.3)
        axes.plot(mean.x, mean.y, color=panel.colour, linewidth=1.8)
    else:
        axes.plot(series.x, y, color=panel.colour, linewidth=1.8, marker="o" if len(y) == 1 else None)
        axes.fill_between(series.x, y, color=panel.colour, alpha=0.10, linewidth=0)
    axes.set_ylabel(panel.ylabel)
    axes.set_ylim(0, 1.15 * float(y.max()) or 1.0)
    axes.margins(x=0.01)


def ceiling(axes: Axes, num_threads: int) -> None:
    """Draws the line that all threads at work would reach: 100 % for each."""
    top = 100 * num_threads
    axes.axhline(top, color=MUTED, linewidth=1.0, linestyle=(0, (3, 3)))
    axes.set_ylim(0, max(axes.get_ylim()[1], 1.25 * top))
    text = "1 thread" if num_threads == 1 else f"{num_threads} threads"
    place: dict[str, Any] = {
        "xycoords": ("axes fraction", "data"),
        "xytext": (-2, 3),
        "textcoords": "offset points",
    }
    axes.annotate(text, (1, top), ha="right", fontsize=9, color=MUTED, **place)


def hardware_title(sampled: dict[str, Series]) -> tuple[str, str | None]:
    """A title with the peak of memory, and a line with the means of the rest."""
    memory, gpu_memory = sampled["memory_bytes"], sampled["gpu_memory_bytes"]
    title, rest = "The machine while it trained", []
    if len(memory):
        title = f"Memory: at most {numbers.size(float(memory.y.max()))}"
    if len(gpu_memory):
        title += f"; GPU memory: at most {numbers.size(float(gpu_memory.y.max()))}"
    if len(sampled["cpu_percent"]):
        rest.append(f"{sampled['cpu_percent'].y.mean() / 100:.1f} processor cores busy")
    if len(sampled["gpu_percent"]):
        rest.append(f"the GPU {numbers.percent(float(sampled['gpu_percent'].y.mean()) / 100, 0)} of the time")
    return title, f"on average {', '.join(rest)}" if rest else None
