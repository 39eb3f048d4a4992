"""The look of every plot: one palette (Okabe and Ito's, safe for the colour-blind), one type size scale."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ..run_directory import write_atomically

BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#AA4499"
INK = "#1F2933"
MUTED = "#667482"
GRID = "#E6E9ED"

BASE_FAMILY = "DejaVu Sans"
"""matplotlib brings it along, so a plot looks the same on every machine."""

STYLE: dict[str, Any] = {
    "font.family": [BASE_FAMILY],
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a label such as "$5" is a label, no formula
    "axes.edgecolor": "#B8C0C8",
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": "#B8C0C8",
    "ytick.color": "#B8C0C8",
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.6,
    "figure.facecolor": "white",
    "savefig.dpi": 160,
    "savefig.facecolor": "white",
    "agg.path.chunksize": 20_000,
}


def plot_style(families: list[str] | None = None) -> AbstractContextManager[None]:
    """Our style over matplotlib's defaults, whatever the user's matplotlibrc says, until the `with` ends."""
    overrides = {**STYLE, "font.family": families} if families else STYLE
    return matplotlib.style.context(["default", overrides])


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; width and height in inches."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
    FigureCanvasAgg(figure)
    return figure


def headline(figure: Figure, title: str, subtitle: str | None = None) -> None:
    """Writes what the plot says, at its top left; below it, smaller, what else there is to know."""
    text = title if subtitle is None else f"{title}\n"
    figure.suptitle(text, x=0.02, ha="left", fontsize=12, fontweight="bold", linespacing=1.75)
    if subtitle is not None:
        # The second, empty line of the title holds its place in the constrained layout.
        height = figure.get_figheight()
        figure.text(0.02, 1 - 0.46 / height, subtitle, ha="left", va="center", fontsize=9.5, color=MUTED)


def legend(axes: Axes) -> None:
    """Puts the legend above the axes: never on top of data. A single line needs none."""
    handles, _ = axes.get_legend_handles_labels()
    if len(handles) > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=len(handles), borderaxespad=0.1, borderpad=0)


def save(figure: Figure, path: Path) -> Path:
    """Writes the figure as a PNG; gives its path."""
    write_atomically(path, lambda target: figure.savefig(target, format="png"))
    return path
