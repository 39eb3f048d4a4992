"""Several labels a text: how well each of them is found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter

from ...metrics import numbers
from ...report.fonts import readable_names
from ...report.style import BLUE, GREEN, INK, VERMILLION, headline, legend, new_figure, plot_style, save

MOST_LABELS = 40
"""More do not fit on a page: the commonest are drawn."""

POINTS = (
    ("f1", "F1", "o", BLUE, 8.0),
    ("precision", "precision", "<", GREEN, 5.0),
    ("recall", "recall", ">", VERMILLION, 5.0),
)


def draw_label_bars(per_label: Mapping[str, Mapping[str, Any]], path: Path) -> tuple[Path, str | None]:
    """per_label: precision, recall, f1 and support by name. A line a label, the commonest first. Path and a note."""
    order = sorted(per_label, key=lambda name: -per_label[name]["support"])[:MOST_LABELS]
    names = readable_names(order)
    with plot_style(names.families):
        figure = new_figure(8.5, 1.9 + 0.3 * len(order))
        axes = figure.add_subplot()
        for key, title, marker, colour, size in POINTS:
            values = [per_label[name][key] for name in order]
            axes.plot(values, range(len(order)), marker, color=colour, markersize=size, label=title, alpha=0.9)
        shown = [
            f"{name}  ({numbers.count(per_label[key]['support'])})"
            for name, key in zip(names.shown, order, strict=True)
        ]
        axes.set_yticks(range(len(order)), shown, color=INK)
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("share (%); in brackets the texts that carry the label")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
        legend(axes)
        best = max(order, key=lambda name: per_label[name]["f1"])
        worst = min(order, key=lambda name: per_label[name]["f1"])
        title = f"Best found: {names.shown[order.index(best)]}, F1 {numbers.percent(per_label[best]['f1'])}"
        below = f"worst: {names.shown[order.index(worst)]}, F1 {numbers.percent(per_label[worst]['f1'])}"
        headline(figure, title, below)
        return save(figure, path), names.note
