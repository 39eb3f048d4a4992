"""Loss, accuracy and learning rate over the steps of training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ..metrics import Metric
from .series import Series, metric, smoothed
from .style import BLUE, GREEN, MUTED, VERMILLION, headline, legend, new_figure, plot_style, save

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SMOOTH_FROM = 12
"""Fewer points than this are drawn as they are: a mean of so few would hide them, not show a trend."""


def draw_loss(lines: list[dict[str, Any]], best_step: int | None, path: Path) -> Path | None:
    """Draws the mean loss per target of train and validation; None where neither was logged."""
    train, validation = metric(lines, "train", "loss"), metric(lines, "validation", "loss")
    if not len(train) and not len(validation):
        return None
    with plot_style():
        figure, axes = curve_figure("loss")
        curve(axes, train, validation, best_step)
        low, high = axes.get_ylim()
        if 0 < low < 0.5 * high:  # a loss that hardly fell is not pressed flat by a far zero
            axes.set_ylim(bottom=0)
        headline(figure, loss_title(train, validation))
        return save(figure, path)


def draw_score(lines: list[dict[str, Any]], best_step: int | None, path: Path, score: Metric) -> Path | None:
    """Draws the metric that is counted beside the loss, in its own unit; None where it was not logged."""
    train, validation = metric(lines, "train", score.key), metric(lines, "validation", score.key)
    if not len(train) and not len(validation):
        return None
    with plot_style():
        figure, axes = curve_figure(f"{score.title} (%)" if score.is_share else score.title)
        curve(axes, train, validation, best_step)
        if score.is_share:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
            axes.set_ylim(top=min(axes.get_ylim()[1], 1.02))
        headline(figure, score_title(train, validation, best_step, score))
        return save(figure, path)


def draw_learning_rate(lines: list[dict[str, Any]], path: Path) -> Path | None:
    """Draws the learning rate of each logged step; None where there is none."""
    rate = metric(lines, "train", "learning_rate")
    if not len(rate):
        return None
    with plot_style():
        figure, axes = curve_figure("learning rate")
        top = int(rate.y.argmax())
        exponent = math.floor(math.log10(rate.y[top])) if rate.y[top] > 0 else 0
        scaled = rate.y / 10.0**exponent
        axes.fill_between(rate.x, scaled, color=GREEN, alpha=0.10, linewidth=0)
        axes.plot(rate.x, scaled, color=GREEN, marker=lone_marker(rate))
        axes.set_ylabel(f"learning rate (× 10{str(exponent).translate(SUPERSCRIPT)})")
        axes.set_ylim(bottom=0)
        headline(figure, f"Highest logged learning rate: {rate.y[top]:.3g}, at step {rate.x[top]:.0f}")
        return save(figure, path)


def curve_figure(ylabel: str) -> tuple[Figure, Axes]:
    """An empty figure over the optimizer's steps."""
    figure = new_figure(6.8, 4.2)
    axes = figure.add_subplot()
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.02)
    return figure, axes


def curve(axes: Axes, train: Series, validation: Series, best_step: int | None) -> None:
    """Draws both splits, train smoothed from SMOOTH_FROM points on, with a ring at the step that was kept."""
    if len(train) >= SMOOTH_FROM:
        mean = smoothed(train)
        axes.plot(train.x, train.y, color=BLUE, alpha=0.28, linewidth=1.0)
        axes.plot(mean.x, mean.y, color=BLUE, label="train (smoothed)")
    elif len(train):
        axes.plot(train.x, train.y, color=BLUE, marker=lone_marker(train), label="train")
    if len(validation):
        marked = "o" if len(validation) <= 60 else None
        line: dict[str, Any] = {
            "color": VERMILLION,
            "linewidth": 1.4,
            "markersize": 5.5,
            "markeredgecolor": "white",
        }
        axes.plot(validation.x, validation.y, marker=marked, label="validation", **line)
    if best_step is not None and (validation.x == best_step).any():
        best = float(validation.y[validation.x == best_step][0])
        axes.axvline(best_step, color=MUTED, linewidth=1.0, linestyle=(0, (3, 3)), zorder=1)
        ring: dict[str, Any] = {"facecolors": (0, 0, 0, 0), "edgecolors": VERMILLION, "linewidths": 1.6}
        axes.scatter([best_step], [best], s=110, zorder=5, label=f"best, step {best_step}", **ring)
    legend(axes)


def lone_marker(series: Series) -> str | None:
    """A marker for a single point, which makes no line."""
    return "o" if len(series) == 1 else None


def loss_title(train: Series, validation: Series) -> str:
    """The lowest validation loss and its step; without validation the first and the last train loss."""
    if len(validation):
        low = int(validation.y.argmin())
        return f"Validation loss is lowest at step {validation.x[low]:.0f}: {validation.y[low]:.3g}"
    return f"Train loss went from {train.y[0]:.3g} to {train.y[-1]:.3g}"


def score_title(train: Series, validation: Series, best_step: int | None, score: Metric) -> str:
    """The best validation score and its step: among equal ones the step that was kept (the loss decided), else the
    first."""
    if len(validation):
        best = validation.y.min() if score.higher_is_better is False else validation.y.max()
        among = validation.x[validation.y == best]
        step = best_step if best_step in among else among[0]
        extreme = "lowest" if score.higher_is_better is False else "highest"
        return f"Validation {score.title} is {extreme} at step {step:.0f}: {score.write(float(best))}"
    return f"Train {score.title} at the last logged step: {score.write(float(train.y[-1]))}"
