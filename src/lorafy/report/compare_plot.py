"""Methods side by side: how good, and at what cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ..metrics import Metric, numbers
from .fonts import readable_names
from .style import BLUE, INK, MUTED, headline, new_figure, plot_style, save
from .view import View

COST = "#8FA3B5"


LOGARITHMIC_FROM = 10
"""Figures without an upper end that lie this many times apart are drawn on a log axis: the better ones would touch
otherwise."""


@dataclass(frozen=True, slots=True)
class Cost:
    """A cost of training: its key in compare_results.json, the title of its panel, and how a figure is written."""

    key: str
    title: str
    write: Callable[[float | None], str]
    logarithmic: bool = False


COSTS = (
    Cost("trainable_parameters", "trainable parameters\n(log scale)", numbers.short_count, logarithmic=True),
    Cost("peak_memory_bytes", "peak memory", numbers.size),
    Cost("seconds", "training time", numbers.duration),
    Cost("bytes_on_disk", "size on disk", numbers.size),
)


def draw_compare(rows: list[dict[str, Any]], path: Path, view: View) -> tuple[Path | None, str | None]:
    """Draws `rows` (compare_results.json's). Returns the path (None: no row has a figure to rank by) and a note."""
    quality = view.compared[0]
    rows = by_quality([row for row in rows if quality.value(row) is not None], quality)
    if not rows:
        return None, None
    names = readable_names([row.get("title", row["method"]) for row in rows])
    costs = [cost for cost in COSTS if any(row.get(cost.key) is not None for row in rows)]
    with plot_style(names.families):
        figure = new_figure(11.5, 1.6 + 0.46 * len(rows))
        widths = [2.3] + [1] * len(costs)
        panels = figure.subplots(1, len(widths), sharey=True, squeeze=False, width_ratios=widths)[0]
        draw_quality(panels[0], quality, rows)
        for axes, cost in zip(panels[1:], costs, strict=True):
            draw_cost(axes, cost, [row.get(cost.key) for row in rows])
        panels[0].set_yticks(range(len(rows)), names.shown, fontsize=10.5, color=INK)
        panels[0].set_ylim(len(rows) - 0.45, -0.55)
        headline(figure, compare_title(rows, names.shown, quality))
        return save(figure, path), names.note


def by_quality(rows: list[dict[str, Any]], quality: Metric) -> list[dict[str, Any]]:
    """The rows in order: the best first, those without a figure last."""
    return sorted(rows, key=lambda row: -quality.rank(quality.value(row)))


def draw_quality(axes: Axes, quality: Metric, rows: list[dict[str, Any]]) -> None:
    """Draws a point a row, with its 95 % interval."""
    values = [row[quality.key] for row in rows]
    for place, (row, value) in enumerate(zip(rows, values, strict=True)):
        low, high = quality.bounds(row) or (value, value)
        axes.plot([low, high], [place, place], color=BLUE, linewidth=4, alpha=0.28)
        of_seeds = [value for run in row.get("runs", []) if (value := quality.value(run)) is not None]
        axes.plot(of_seeds, [place] * len(of_seeds), "|", color=BLUE, markersize=11, alpha=0.7)
        axes.plot([value], [place], "o", color=BLUE, markersize=8, markeredgecolor="white")
        style: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 9}
        axes.annotate(quality.write(value), (value, place), (0, 7), **style)
    is_wide = not quality.is_share and min(values) > 0 and max(values) > LOGARITHMIC_FROM * min(values)
    num_seeds = max(len(row.get("seeds", [])) for row in rows)
    axes.set_title(axis_title(quality, is_wide, num_seeds), loc="left", fontsize=9.5, color=MUTED)
    scale(axes, quality, is_wide)
    axes.grid(False, axis="y")
    axes.tick_params(length=0, which="both")
    axes.spines["left"].set_visible(False)


def axis_title(quality: Metric, is_logarithmic: bool, num_seeds: int = 1) -> str:
    """`accuracy, with its 95 % interval (%)`; in a second line what is not the usual."""
    unusual = ["lower is better"] if quality.higher_is_better is False else []
    unusual += ["log scale"] if is_logarithmic else []
    unit = " (%)" if quality.is_share else ""
    below = f"\n({'; '.join(unusual)})" if unusual else ""
    title = f"mean {quality.title} of {num_seeds} seeds" if num_seeds > 1 else quality.title
    return f"{title}, with its 95 % interval{unit}{below}"


def scale(axes: Axes, quality: Metric, is_logarithmic: bool) -> None:
    """Sets the axis of figures: shares in per cent up to 100, others as far as they go."""
    if is_logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=8))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    factor = 100 if quality.is_share else 1
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{factor * value:,g}"))
    axes.margins(x=0.08)
    if quality.is_share:
        axes.set_xlim(right=min(axes.get_xlim()[1], 1.03))


def draw_cost(axes: Axes, cost: Cost, values: list[float | None]) -> None:
    """Draws a bar a row; a cost that was not measured has none."""
    known = [value for value in values if value]
    top = max(known, default=1)
    start = min(known, default=1) / 3 if cost.logarithmic else 0.0
    for place, value in enumerate(values):
        if value:
            axes.barh(place, value - start, left=start, height=0.46, color=COST)
        style: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 9}
        axes.annotate(cost.write(value), (value or start, place), (4, 0), **style)
    if cost.logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(start, top * (top / start) ** 0.9)
    else:
        axes.set_xlim(0, 1.9 * top)
    axes.set_title(cost.title, loc="left", fontsize=9.5, color=MUTED)
    axes.grid(False)
    axes.tick_params(length=0, labelbottom=False, which="both")
    axes.spines["bottom"].set_visible(False)


def compare_title(rows: list[dict[str, Any]], shown: list[str], quality: Metric) -> str:
    """The best method, and whether its interval stands apart; of several seeds, which methods differ from the first
    seed by seed. shown: the methods' names."""
    extreme = "Lowest" if quality.higher_is_better is False else "Highest"
    title = f"{extreme} {quality.title}: {shown[0]}, {quality.write(quality.value(rows[0]))}"
    paired = {
        name: bounds for name, row in zip(shown, rows, strict=True) if (bounds := quality.bounds(row.get("difference")))
    }
    if paired:
        apart = [name for name, (low, high) in paired.items() if low > 0 or high < 0]
        against = next(row["against"] for row in rows if row.get("difference"))
        found = f"{listed(apart)} {'differ' if len(apart) > 1 else 'differs'}" if apart else "no method differs"
        return f"{title}; seed by seed {found} from {against}"
    intervals = [bounds for row in rows if (bounds := quality.bounds(row))]
    if len(intervals) < max(len(rows), 2):
        return title
    best_low, best_high = intervals[0]
    near = [
        name
        for name, (low, high) in zip(shown[1:], intervals[1:], strict=True)
        if low <= best_high and high >= best_low
    ]
    if not near:
        return f"{title}; no other method's interval reaches its own"
    return f"{title}; its interval overlaps with that of {listed(near)}"


def listed(names: list[str]) -> str:
    """`LoRA, DoRA and PiSSA`"""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
