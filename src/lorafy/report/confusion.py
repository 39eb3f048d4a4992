"""The confusion matrix: right answers in blue, mistakes in orange, each by its share of the true class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb

from ..metrics import numbers
from .fonts import readable_names
from .style import GRID, INK, headline, new_figure, plot_style, save

RIGHT = LinearSegmentedColormap.from_list("right", ["#F4F8FC", "#BBD7EC", "#6BAAD4", "#2A78B5", "#0B4A82"])
WRONG = LinearSegmentedColormap.from_list("wrong", ["#FFFFFF", "#FDE3C8", "#F9B27C", "#E57434", "#A63E06"])
MISTAKE_GAMMA = 0.5
"""A mistake's colour follows the square root of its share: 2 % of a class must be seen beside 98 %."""

FAINT = "#B5BEC7"
MAX_WRITTEN = 40
"""Above so many classes a cell has no room for any text."""
MAX_PERCENTAGES = 20
"""Above so many classes a cell has no room for its percentage."""

MAX_NAME = 22
"""The most characters of a class's name."""


def draw_confusion(results: dict[str, Any], path: Path) -> tuple[Path, str | None]:
    """Draws the matrix of `results` (eval_results.json); its rows are true classes. Returns the path and a note."""
    matrix = np.array(results["metrics"]["confusion_matrix"], dtype=float)
    names = readable_names(results["labels"])
    shown = [name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…" for name in names.shown]
    side = min(max(2.9 + 0.62 * len(shown), 4.6), 16.0)
    with plot_style(names.families):
        figure = new_figure(side + 0.3, side + 0.5)
        axes = figure.add_subplot()
        axes.imshow(cell_colours(matrix), interpolation="nearest", aspect="equal")
        name_axes(axes, shown)
        if len(shown) <= MAX_WRITTEN:
            write_cells(axes, matrix)
        split = results.get("split", "evaluated")
        title = f"{count_right(matrix)} of {numbers.count(matrix.sum())} {split} examples right"
        headline(figure, title, worst_confusion(matrix, shown))
        return save(figure, path), names.note


def row_shares(matrix: np.ndarray) -> np.ndarray:
    """Each cell as a share of its row; a class without examples has shares of 0."""
    totals = matrix.sum(axis=1, keepdims=True)
    return np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)


def cell_colours(matrix: np.ndarray) -> np.ndarray:
    """Counts (C, C) -> colours (C, C, 3), RGB from 0 to 1."""
    shares = row_shares(matrix)
    diagonal = np.eye(len(matrix), dtype=bool)[..., None]
    return np.where(diagonal, RIGHT(shares)[..., :3], WRONG(shares**MISTAKE_GAMMA)[..., :3])


def name_axes(axes: Axes, shown: list[str]) -> None:
    """Writes the names of the classes on both axes, small and turned where they are many or long."""
    places = range(len(shown))
    fontsize = 10 if len(shown) <= MAX_PERCENTAGES else 7.5
    turned = len(shown) > MAX_PERCENTAGES or max(map(text_width, shown)) > 8
    across: dict[str, Any] = {}
    if turned:
        across = {"rotation": 40 if len(shown) <= MAX_PERCENTAGES else 90, "rotation_mode": "anchor"}
        across |= {"ha": "right", "va": "center" if len(shown) > MAX_PERCENTAGES else "top"}
    axes.set_xticks(places, shown, fontsize=fontsize, color=INK, **across)
    axes.set_yticks(places, shown, fontsize=fontsize, color=INK, va="center_baseline")
    axes.set_xlabel("predicted", labelpad=8)
    axes.set_ylabel("label", labelpad=8)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    edges = np.arange(len(shown) + 1) - 0.5
    lines: dict[str, Any] = {"color": GRID, "linewidth": 0.8 if len(shown) <= MAX_WRITTEN else 0.3}
    axes.hlines(edges, edges[0], edges[-1], **lines)
    axes.vlines(edges, edges[0], edges[-1], **lines)


def text_width(text: str) -> int:
    """Width of a text in half-width columns: a Chinese character takes two."""
    return sum(2 if character > "\u2e80" else 1 for character in text)


def write_cells(axes: Axes, matrix: np.ndarray) -> None:
    """Writes each cell's count and, where there is room, its share of the row in per cent."""
    shares, colours = row_shares(matrix), cell_colours(matrix)
    with_percentages = len(matrix) <= MAX_PERCENTAGES
    fontsize = cell_fontsize(len(matrix))
    for row, column in np.ndindex(matrix.shape):
        number = float(matrix[row, column])
        style: dict[str, Any] = {"ha": "center", "textcoords": "offset points"}
        if number == 0:
            axes.annotate("0", (column, row), (0, 0), va="center", fontsize=0.8 * fontsize, color=FAINT, **style)
            continue
        style["color"] = "white" if luminance(colours[row, column]) < 0.36 else INK
        style["fontweight"] = "bold" if row == column else "normal"
        if not with_percentages:
            axes.annotate(numbers.count(number), (column, row), (0, 0), va="center", fontsize=fontsize, **style)
            continue
        share = numbers.percent(float(shares[row, column]), 0)
        low = (0, -0.28 * fontsize)
        axes.annotate(numbers.count(number), (column, row), (0, 0), va="baseline", fontsize=fontsize, **style)
        style["fontweight"] = "normal"
        axes.annotate(share, (column, row), low, va="top", fontsize=0.74 * fontsize, **style)


def cell_fontsize(num_labels: int) -> float:
    """Size of a count in points: the more classes, the smaller."""
    sizes = ((4, 13.0), (12, 10.5), (MAX_PERCENTAGES, 8.5))
    return next((fontsize for most, fontsize in sizes if num_labels <= most), 6.5)


def luminance(colour: np.ndarray) -> float:
    """Relative luminance (WCAG 2, section 1.4.3): 0 black, 1 white."""
    rgb = np.array(to_rgb(tuple(colour)))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def count_right(matrix: np.ndarray) -> str:
    """How many answers are right: the sum of the diagonal, as text."""
    return numbers.count(np.trace(matrix))


def worst_confusion(matrix: np.ndarray, shown: list[str]) -> str:
    """The most frequent mistake as a sentence, with its count."""
    mistakes = matrix - np.diag(np.diag(matrix))
    if mistakes.max(initial=0) == 0:
        return "no mistake at all"
    label, predicted = np.unravel_index(mistakes.argmax(), mistakes.shape)
    times = int(mistakes[label, predicted])
    often = "once" if times == 1 else f"{numbers.count(times)} times"
    return f"most often confused: {shown[label]}, predicted as {shown[predicted]}, {often}"
