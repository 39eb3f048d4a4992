"""What is shown of a regression model: errors and correlations, a scatter plot, the worst errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
from matplotlib.axes import Axes

from ...metrics import Metric, numbers
from ...report.sections import Cell, Column, Section, Table
from ...report.style import BLUE, MUTED, headline, new_figure, plot_style, save
from ...report.view import Picture, View, mistakes_table
from .scoring import MAE, MSE, NUM_MISTAKES, PEARSON, SPEARMAN

CAPTION = "A point a text: its value to the right, its prediction upwards. On the line both are equal."


class RegressionView(View):
    """The view of a number a text."""

    metrics = (MAE, MSE, PEARSON, SPEARMAN)
    compared = (MAE, PEARSON, SPEARMAN, MSE)
    logged = (MAE, PEARSON, SPEARMAN)
    curve: Metric = MAE
    tabulated = True
    best_by_loss = True

    def detail(self, results: dict[str, Any]) -> str:
        """A sentence with the mean absolute error of always predicting the mean."""
        metrics = results["metrics"]
        verb = "For comparison" if self.gained(results) else "That is no better than guessing"
        return f"{verb}: always predicting the mean would be {MAE.write(metrics['mean_mae'])} off."

    def gained(self, results: dict[str, Any]) -> bool:
        """Whether its mean absolute error is lower than that of always predicting the mean."""
        return results["metrics"]["mae"] < results["metrics"]["mean_mae"]

    def results(self, results: dict[str, Any]) -> list[Section]:
        """A table of every figure with its interval."""
        metrics = results["metrics"]
        heads = [Column("figure", "name"), Column("value", "number"), Column("what it means", "meaning")]
        rows = [
            [
                Cell(metric.title, metric.direction),
                Cell(metric.write(metric.value(metrics)), metric.interval(metrics)),
                Cell(metric.meaning),
            ]
            for metric in self.metrics
        ]
        return [Table("What was measured", heads, rows, note="with 95 % intervals")]

    def details(self, results: dict[str, Any]) -> list[Section]:
        """A table of the predictions that are farthest off."""
        shown = [
            {**mistake, "value": numbers.figure(mistake["value"]), "predicted": numbers.figure(mistake["predicted"])}
            for mistake in results["mistakes"]
        ]
        columns = [(Column(name, "number"), name) for name in ("value", "predicted")]
        return [mistakes_table(shown, columns, NUM_MISTAKES, note="the farthest first")]

    def draw(self, results: dict[str, Any], folder: Path) -> list[Picture]:
        """A picture of predictions over values."""
        return [Picture(draw_scatter(results, folder / "scatter.png"), CAPTION)]


def draw_scatter(results: dict[str, Any], path: Path) -> Path:
    """Draws a point a text, its prediction over its value. results: eval_results.json, whose `points` are such
    pairs."""
    truth, predicted = numpy.array(results["points"]).T
    metrics = results["metrics"]
    with plot_style():
        figure = new_figure(5.8, 5.6)
        axes = figure.add_subplot()
        faint = 0.75 if len(truth) <= 200 else 0.3
        axes.plot(truth, predicted, "o", color=BLUE, markersize=4.5, alpha=faint, markeredgewidth=0)
        same_scale(axes, truth, predicted)
        axes.set_xlabel("value")
        axes.set_ylabel("predicted")
        title = f"Mean absolute error {MAE.write(metrics['mae'])}"
        number, drawn = results["num_examples"], len(truth)
        below = f"{number:,} {results['split']} examples" + (f", {drawn:,} of them drawn" if drawn < number else "")
        if metrics["pearson"] is not None:
            below += f"; Pearson {metrics['pearson']:.3f}, Spearman {metrics['spearman']:.3f}"
        headline(figure, title, below)
        return save(figure, path)


def same_scale(axes: Axes, truth: numpy.ndarray, predicted: numpy.ndarray) -> None:
    """Gives both axes the same range, with the line where prediction and value are equal."""
    low, high = min(truth.min(), predicted.min()), max(truth.max(), predicted.max())
    room = 0.05 * (high - low or 1.0)
    axes.plot([low - room, high + room], [low - room, high + room], color=MUTED, linewidth=1.0, linestyle=(0, (3, 3)))
    axes.set_xlim(low - room, high + room)
    axes.set_ylim(low - room, high + room)
    axes.set_aspect("equal")
