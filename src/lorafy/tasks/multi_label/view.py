"""What is shown of a multi-label classifier: the figures of each label, in a table and drawn; the worst mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...metrics import LOSS, numbers
from ...report.sections import Cell, Column, Section, Table
from ...report.view import Picture, View, mistakes_table
from .label_bars import draw_label_bars
from .scoring import DECISIONS, F1_MACRO, F1_MICRO, SUBSET, THRESHOLD

MAX_MISTAKES = 20
DECISIONS_CAPTION = (
    "Share of right decisions, yes from a probability of 50 %: one for each label of each text. A label that few texts "
    "carry is mostly rightly denied, so this is high early."
)
CAPTION = "Of each label: F1, precision and recall, with the number of texts that carry it."


class MultiLabelView(View):
    """The view of several labels a text: micro and macro F1, subset accuracy, and the figures of each label."""

    metrics = (F1_MICRO, F1_MACRO, SUBSET, DECISIONS, THRESHOLD, LOSS)
    compared = (F1_MICRO, F1_MACRO, SUBSET)
    logged = (F1_MICRO, F1_MACRO, SUBSET)
    curve = DECISIONS

    def detail(self, results: dict[str, Any]) -> str:
        """A sentence with the subset accuracy, beside that of always answering the most frequent set of labels."""
        metrics = results["metrics"]
        always = numbers.percent(metrics["majority_subset_accuracy"])
        share = numbers.percent(metrics["subset_accuracy"])
        return f"Exactly right: {share} of the texts; always the most frequent set of labels: {always}."

    def results(self, results: dict[str, Any]) -> list[Section]:
        """A table with precision, recall and F1 of each label."""
        figures = ("precision", "recall", "f1")
        heads = [Column("label", "name"), *(Column(name, "number") for name in ("precision", "recall", "F1", "texts"))]
        rows = [
            [Cell(name), *(Cell(numbers.percent(row[key])) for key in figures), Cell(numbers.count(row["support"]))]
            for name, row in results["metrics"]["per_label"].items()
        ]
        threshold = numbers.percent(results["metrics"]["threshold"], digits=0)
        return [Table("Per label", heads, rows, note=f"a label is said from a probability of {threshold}")]

    def details(self, results: dict[str, Any]) -> list[Section]:
        """The mistakes that the model was surest of."""
        shown = [
            mistake
            | {
                "labels": ", ".join(mistake["labels"]) or "(none)",
                "predicted": ", ".join(mistake["predicted"]) or "(none)",
                "surest": f"{mistake['wrong']} {numbers.percent(mistake['probability'])}",
            }
            for mistake in results["mistakes"]
        ]
        columns = [(Column(name, "name"), name) for name in ("labels", "predicted")]
        wrong = (Column("surest wrong one", "number"), "surest")
        return [mistakes_table(shown, [*columns, wrong], MAX_MISTAKES)] if shown else []

    def caption(self, name: str) -> str:
        """The caption of a plot that every task has."""
        return DECISIONS_CAPTION if name == DECISIONS.key else super().caption(name)

    def draw(self, results: dict[str, Any], folder: Path) -> list[Picture]:
        """A picture of the figures of each label."""
        path, note = draw_label_bars(results["metrics"]["per_label"], folder / "labels.png")
        return [Picture(path, CAPTION, note, wide=True)]
