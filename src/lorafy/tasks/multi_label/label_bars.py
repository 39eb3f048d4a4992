"""Several labels a text: how well each of them is found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter

from ...metrics import numbers
from ...report.fonts import readable_names
from ...report.style import BLUE, GREEN, INK, MUTED, VERMILLION, headline, legend, new_figure, plot_style, save
from ...report.view import shortened

MOST_LABELS = 40
"""The most labels that are drawn, the commonest first: more do not fit on a page."""
MAX_NAME = 40
"""The most characters of a label's name."""

POINTS = (
    ("precision", "precision", "<", GREEN, 6.0),
    ("recall", "recall", ">", VERMILLION, 6.0),
    ("f1", "F1", "o", BLUE, 7.0),
)


def draw_label_bars(per_label: Mapping[str, Mapping[str, Any]], path: Path) -> tuple[Path, str | None]:
    """Draws a line a label, the commonest first; gives path and a note. per_label: precision, recall, f1 and support by
    name."""
    names = readable_names(per_label)  # numbers, where a font lacks, are those of the report's table
    shown = {name: shortened(text, MAX_NAME) for name, text in zip(per_label, names.shown, strict=True)}
    order = sorted(per_label, key=lambda name: -per_label[name]["support"])[:MOST_LABELS]
    with plot_style(names.families):
        figure = new_figure(8.5, 1.9 + 0.3 * len(order))
        axes = figure.add_subplot()
        left, right = ([per_label[name][key] for name in order] for key in ("precision", "recall"))
        axes.hlines(range(len(order)), left, right, color=MUTED, linewidth=1.2)
        for key, title, marker, colour, size in POINTS:
            values = [per_label[name][key] for name in order]
            axes.plot(values, range(len(order)), marker, color=colour, markersize=size, label=title)
        counted = [f"{shown[name]}  ({numbers.count(per_label[name]['support'])})" for name in order]
        axes.set_yticks(range(len(order)), counted, color=INK)
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("share (%); in brackets the texts that carry the label")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
        legend(axes)
        headline(figure, *titles(per_label, shown))
        return save(figure, path), names.note


def titles(per_label: Mapping[str, Mapping[str, Any]], shown: Mapping[str, str]) -> tuple[str, str | None]:
    """Title and subtitle: the best found label, and the worst; a label that no text carries is neither."""
    f1 = {name: figures["f1"] for name, figures in per_label.items() if figures["support"]}
    if not f1:
        return "No text carries a label", None
    best, worst = max(f1, key=f1.__getitem__), min(f1, key=f1.__getitem__)
    below = [f"worst: {shown[worst]}, F1 {numbers.percent(f1[worst])}"] if f1[worst] < f1[best] else []
    if len(per_label) > MOST_LABELS:
        below.append(f"drawn are the {MOST_LABELS} commonest of {len(per_label)} labels")
    title = "Best found: " if below else ""
    return f"{title}{shown[best]}, F1 {numbers.percent(f1[best])}", "; ".join(below) or None
