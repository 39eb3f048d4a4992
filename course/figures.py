"""The four-panel figure of a training: losses, accuracies, where they ended, and what training changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lorafy.metrics.numbers import percent
from lorafy.report.fonts import NO_CHINESE_FONT, find_family
from lorafy.report.style import (
    BASE_FAMILY,
    BLUE,
    INK,
    MUTED,
    VERMILLION,
    headline,
    legend,
    new_figure,
    plot_style,
    save,
)
from lorafy.scratch import History

Language = Literal["en", "zh"]

WORDS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Validation accuracy: {before} before training, {after} after {steps} steps",
        "subtitle": "validation loss {loss_before:.3f} before, {loss_after:.3f} after; {seconds:.0f} s in all",
        "losses": "Loss",
        "accuracies": "Accuracy",
        "last": "At the last step",
        "improvement": "What training changed",
        "train": "train",
        "validation": "validation",
        "step": "optimizer step",
        "loss_axis": "cross-entropy (nats)",
        "accuracy_axis": "accuracy (%)",
        "loss_is": "loss {loss:.3f}",
        "points": "{points:+.1f} points",
    },
    "zh": {
        "title": "验证集准确率：训练前 {before}，训练 {steps} 步后 {after}",
        "subtitle": "验证集损失：训练前 {loss_before:.3f}，训练后 {loss_after:.3f}；总用时 {seconds:.0f} 秒",
        "losses": "损失",
        "accuracies": "准确率",
        "last": "最后一步的结果",
        "improvement": "训练带来的变化",
        "train": "训练集",
        "validation": "验证集",
        "step": "优化步数",
        "loss_axis": "交叉熵（奈特）",
        "accuracy_axis": "准确率（%）",
        "loss_is": "损失 {loss:.3f}",
        "points": "{points:+.1f} 个百分点",
    },
}


def language_and_fonts(language: Language) -> tuple[Language, list[str]]:
    """The font families for labels in this language. Without a Chinese font: English, and a line that says so."""
    if language not in WORDS:
        raise ValueError(f"language is {language!r}, not one of {', '.join(WORDS)}")
    if language == "en":
        return "en", [BASE_FAMILY]
    family = find_family({character for text in WORDS["zh"].values() for character in text if character > "\u2e80"})
    if family is None:
        print(f"The figure has English labels. {NO_CHINESE_FONT.partition(';')[2].strip().partition(' and draw')[0]}")
        return "en", [BASE_FAMILY]
    return "zh", [BASE_FAMILY, family]


def plot_training_curves(history: History, path: str | Path, language: Language = "en") -> Path:
    """Draws the history of `train_lora_model` as a PNG and returns its path."""
    language, families = language_and_fonts(language)
    words = WORDS[language]
    with plot_style(families):
        figure = new_figure(9.6, 7.0)
        (losses, accuracies), (last, improvement) = figure.subplots(2, 2, height_ratios=(3, 2))
        curves(losses, history.steps, history.train_losses, history.validation_losses, words)
        losses.set_ylabel(words["loss_axis"])
        losses.set_ylim(0, 1.08 * max(*history.train_losses, *history.validation_losses))
        curves(accuracies, history.steps, history.train_accuracies, history.validation_accuracies, words)
        accuracies.set_ylabel(words["accuracy_axis"])
        low, high = accuracies.get_ylim()
        accuracies.set_ylim(min(low, high - 0.1), min(high, 1.02))  # a change of one text looks like one
        as_percent(accuracies.yaxis)
        draw_last(last, history, words)
        draw_improvement(improvement, history, words)
        for axes, name in ((losses, "losses"), (accuracies, "accuracies")):
            axes.set_title(words[name], loc="left", fontsize=11, color=INK, pad=22)
        for axes, name in ((last, "last"), (improvement, "improvement")):
            axes.set_title(words[name], loc="left", fontsize=11, color=INK, pad=10)
        facts = {
            "before": percent(history.validation_accuracies[0]),
            "after": percent(history.validation_accuracies[-1]),
            "loss_before": history.validation_losses[0],
            "loss_after": history.validation_losses[-1],
            "steps": history.steps[-1],
            "seconds": history.seconds,
        }
        headline(figure, words["title"].format(**facts), words["subtitle"].format(**facts))
        return save(figure, Path(path))


def curves(
    axes: Axes, steps: Sequence[int], train: Sequence[float], validation: Sequence[float], words: dict[str, str]
) -> None:
    for values, color, name in ((train, BLUE, "train"), (validation, VERMILLION, "validation")):
        axes.plot(steps, values, color=color, marker="o", markersize=5, markeredgecolor="white", label=words[name])
    axes.set_xlabel(words["step"])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.03)
    legend(axes)


def draw_last(axes: Axes, history: History, words: dict[str, str]) -> None:
    """A bar for each accuracy at the end, its loss written into it."""
    accuracies = (history.train_accuracies[-1], history.validation_accuracies[-1])
    losses = (history.train_losses[-1], history.validation_losses[-1])
    axes.barh((0, 1), accuracies, height=0.58, color=(BLUE, VERMILLION))
    for row, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True)):
        axes.text(accuracy + 0.015, row, percent(accuracy), va="center", fontweight="bold")
        inside = accuracy > 0.3
        axes.text(
            0.02 if inside else accuracy + 0.2,
            row,
            words["loss_is"].format(loss=loss),
            va="center",
            color="white" if inside else MUTED,
        )
    axes.set_xlim(0, 1.18)
    axes.set_xlabel(words["accuracy_axis"])
    name_rows(axes, words)


def draw_improvement(axes: Axes, history: History, words: dict[str, str]) -> None:
    """An arrow for each accuracy from before the first step to after the last."""
    pairs = (history.train_accuracies, history.validation_accuracies)
    for row, (values, color) in enumerate(zip(pairs, (BLUE, VERMILLION), strict=True)):
        before, after = values[0], values[-1]
        if abs(after - before) > 0.06:
            arrow = {"arrowstyle": "-|>", "color": color, "linewidth": 2.2, "mutation_scale": 16, "shrinkB": 0}
            axes.annotate("", (after, row), (before, row), arrowprops=arrow)
        else:  # too short for an arrow
            axes.plot([before, after], [row, row], marker="o", markersize=5, color=color)
        axes.plot([before], [row], marker="o", markersize=8, markerfacecolor="white", color=color, markeredgewidth=2)
        points = words["points"].format(points=100 * (after - before)).replace("-", "−")
        axes.text((before + after) / 2, row - 0.17, points, ha="center", va="bottom", color=color, fontweight="bold")
        left, right = sorted((before, after))
        axes.text(left - 0.025, row, percent(left), ha="right", va="center", color=MUTED)
        axes.text(right + 0.025, row, percent(right), ha="left", va="center", color=MUTED)
    axes.set_xlim(0, 1.18)
    axes.set_xlabel(words["accuracy_axis"])
    name_rows(axes, words)


def name_rows(axes: Axes, words: dict[str, str]) -> None:
    """Training above validation, and accuracies along the x axis."""
    axes.set_yticks((0, 1), (words["train"], words["validation"]))
    axes.set_ylim(1.6, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xticks((0, 0.25, 0.5, 0.75, 1))
    as_percent(axes.xaxis)


def as_percent(axis: Axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
