"""What is shown of a classifier: accuracy, figures per class, the confusion matrix, the worst mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..metrics import ACCURACY, F1_MACRO, F1_WEIGHTED, numbers
from .confusion import draw_confusion
from .sections import Cell, Column, Section, Table
from .view import Picture, View, mistakes_table

MAX_MISTAKES = 25
MAX_NARROW_LABELS = 4
CAPTION = (
    "Rows are labels, columns are predictions: right answers in blue, mistakes in orange, coloured by their share of "
    "the row."
)


class ClassView(View):
    """The view of one class a text."""

    metrics = (ACCURACY, F1_MACRO, F1_WEIGHTED)
    compared = (ACCURACY, F1_MACRO)
    logged = (ACCURACY, F1_MACRO)
    curve = ACCURACY

    def detail(self, results: dict[str, Any]) -> str:
        """A sentence with the accuracy of always answering the most frequent label."""
        metrics = results["metrics"]
        majority = metrics.get("majority_accuracy")
        if majority is None or metrics.get("accuracy") is None:
            return ""
        always = f"always answering the most frequent label would reach {numbers.percent(majority)}"
        verb = "For comparison" if metrics["accuracy"] > majority else "That is no better than guessing"
        return f"{verb}: {always}."

    def results(self, results: dict[str, Any]) -> list[Section]:
        """A table with precision, recall and F1 of each class."""
        per_class = results.get("metrics", {}).get("per_class") or {}
        names = [name for name in results.get("labels", []) if name in per_class]
        if not names:
            return []
        columns = [
            Column("#", "soft"),
            Column("label", "name"),
            *map(number, ("precision", "recall", "F1", "examples")),
        ]
        rows = []
        for index, name in enumerate(names):
            figures = [numbers.percent(per_class[name][key]) for key in ("precision", "recall", "f1")]
            cells = [str(index), name, *figures, numbers.count(per_class[name]["support"])]
            rows.append([Cell(text) for text in cells])
        return [Table("Per class", columns, rows)]

    def details(self, results: dict[str, Any]) -> list[Section]:
        """The mistakes that the model was surest of."""
        mistakes = sorted(results.get("mistakes", []), key=lambda mistake: mistake["probability"], reverse=True)
        if not mistakes:
            return []
        shown = [mistake | {"shown": numbers.percent(mistake["probability"])} for mistake in mistakes]
        columns = [
            (Column("label", "name"), "label"),
            (Column("predicted", "name"), "predicted"),
            (number("probability"), "shown"),
        ]
        return [mistakes_table(shown, columns, MAX_MISTAKES)]

    def draw(self, results: dict[str, Any], folder: Path) -> list[Picture]:
        """The confusion matrix."""
        if not results.get("labels") or not results["metrics"].get("confusion_matrix"):
            return []
        path, note = draw_confusion(results, folder / "confusion_matrix.png")
        return [Picture(path, CAPTION, note, wide=len(results["labels"]) > MAX_NARROW_LABELS)]

    def caption(self, name: str) -> str:
        """The caption of a plot that every task has."""
        if name == ACCURACY.key:
            return "Share of right answers. On the train split it is measured during the step, with dropout."
        return super().caption(name)


def number(title: str) -> Column:
    """A column of figures."""
    return Column(title, "number")
