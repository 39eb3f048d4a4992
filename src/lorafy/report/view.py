"""What is shown of a task: on the page, on the terminal, in `lorafy compare`. A task names one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..metrics import LOSS, Metric, numbers
from .sections import Cell, Column, Section, Table

CAPTIONS = {
    "loss": "Loss per target: blue on the train split (smoothed where a thin line shows every logged "
    "step), orange on the validation split.",
    "learning_rate": "Learning rate of each logged step.",
    "hardware": "The training process, sampled while it ran. 100 % processor is one core at work.",
    "ranks": "The rank of each adapted layer at each step, the darker the higher: below each other the layers of one "
    "kind, the first of the stack on top. Above: the ranks of all layers together.",
    "compare": "The same data, seed and evaluation for every method.",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A plot that was drawn. note: a sentence for the user about how. wide: wants the whole page."""

    path: Path
    caption: str
    note: str | None = None
    wide: bool = False


class View:
    """The usual case, from declared metrics alone; a task with more to show subclasses it.

    metrics: of eval_results.json, the headline's first. compared: those that `lorafy compare` shows, the first ranks
    the methods. logged: of a validation, beside its loss. curve: what is drawn beside the loss, from metrics.jsonl.
    has_base: whether the untrained base is measured too.
    """

    metrics: Sequence[Metric] = (LOSS,)
    compared: Sequence[Metric] = (LOSS,)
    logged: Sequence[Metric] = ()
    curve: Metric | None = None
    has_base = False
    tabulated = False
    """Whether `results` lists every one of the metrics: else the terminal writes them in lines."""
    best_by_loss = False
    """Whether the lowest validation loss chooses the step that is kept."""
    commands: Sequence[tuple[str, str]] = (("ask it", 'lorafy predict {run} "text"'),)
    """What to do with a trained model, for the page: title and command."""

    @property
    def brief(self) -> Sequence[Metric]:
        """The metrics of `compared` that a terminal has room for."""
        return self.compared[:2]

    def flat(self, metrics: Mapping[str, Any] | None) -> dict[str, Any]:
        """Metrics by key, those of sections among them; empty where there are none."""
        return dict(metrics or {})

    def metric(self, key: str) -> Metric | None:
        """The declared metric of this key."""
        every = (*self.logged, *self.metrics, *self.compared, LOSS)
        return next((metric for metric in every if metric.key == key), None)

    def said(self, results: dict[str, Any]) -> str:
        """The result as a sentence without its end: `Accuracy 92.5 % (95 % interval ...) on 106 test examples`."""
        metrics = self.flat(results["metrics"])
        first = next((metric for metric in (*self.metrics, LOSS) if metric.value(metrics) is not None), LOSS)
        where = f"on {numbers.count(results['num_examples'])} {results['split']} examples"
        title = f"{first.title[0].upper()}{first.title[1:]}"
        return f"{title} {first.write(first.value(metrics))}{in_brackets(first, metrics)} {where}"

    def detail(self, results: dict[str, Any]) -> str:
        """A sentence that the result should be held against; nothing where there is nothing to say."""
        return ""

    def gained(self, results: dict[str, Any]) -> bool:
        """Whether training made something better."""
        return True

    def cards(self, results: dict[str, Any]) -> list[tuple[str, str, str]]:
        """Title, figure, and small lines below it, for each metric that a person asks for first."""
        metrics, base = self.flat(results.get("metrics")), self.flat(results.get("base"))
        shown = [metric for metric in self.compared if metric.value(metrics) is not None]
        if not shown and LOSS.value(metrics) is not None:
            shown = [LOSS]
        return [(m.title, m.write(m.value(metrics)), "\n".join(below(m, metrics, base))) for m in shown]

    def results(self, results: dict[str, Any]) -> list[Section]:
        """Sections with what was measured, in full."""
        return []

    def details(self, results: dict[str, Any]) -> list[Section]:
        """Sections with what else is worth a look, behind the plots; not for the terminal."""
        return []

    def of_comparison(self, rows: list[dict[str, Any]]) -> list[Section]:
        """Sections with what else is shown of methods side by side."""
        return []

    def comparison_row(self, results: dict[str, Any], voice: str) -> dict[str, Any]:
        """What compare_results.json keeps of a result. voice: `metrics` (of what was trained) or `base`."""
        metrics = self.flat(results[voice])
        kept: dict[str, Any] = {}
        for metric in self.compared:
            kept[metric.key] = metric.value(metrics)
            if metric.bounds(metrics) is not None:
                kept[f"{metric.key}_interval"] = metric.bounds(metrics)
        return kept

    def draw(self, results: dict[str, Any], folder: Path) -> list[Picture]:
        """Plots of its own, from eval_results.json."""
        return []

    def caption(self, name: str) -> str:
        """The caption of a plot that every task has."""
        meaning = "" if self.curve is None else self.curve.meaning
        return CAPTIONS.get(name) or f"{meaning[:1].upper()}{meaning[1:]}."


def in_brackets(metric: Metric, metrics: Mapping[str, Any]) -> str:
    """A metric's interval for a sentence, ` (95 % interval 89.5 to 94.5 %)`, or nothing."""
    interval = metric.interval(metrics)
    return f" (95 % interval {interval})" if interval else ""


def below(metric: Metric, metrics: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    """The lines below a figure: the base model's, and the interval."""
    lines = []
    if metric.value(base) is not None:
        lines.append(f"base model {metric.write(metric.value(base))}")
    if metric.interval(metrics):
        lines.append(f"95 % interval {metric.interval(metrics)}")
    return lines


def mistakes_table(
    mistakes: Sequence[Mapping[str, Any]],
    columns: Sequence[tuple[Column, str]],
    most: int,
    note: str = "the surest first",
) -> Table:
    """A table of the texts that were answered worst. columns: with the key of each mistake that they show."""
    rows = []
    for mistake in mistakes[:most]:
        where = Path(mistake.get("source", "")).name
        place = f"{where}, row {mistake['row']}" if "row" in mistake else where
        text = Cell(shortened(mistake["text"]), shortened(mistake.get("text_pair") or ""))
        rows.append([text, *(Cell(str(mistake[key])) for _, key in columns), Cell(place)])
    counted = f"{len(rows)} of {numbers.count(len(mistakes))}, " if len(mistakes) > len(rows) else ""
    heads = [Column("text"), *(column for column, _ in columns), Column("where", "soft")]
    return Table("Worst mistakes", heads, rows, note=f"{counted}{note}")


MAX_TEXT = 600
"""The most characters of a text in a table."""


def shortened(text: str, most: int = MAX_TEXT) -> str:
    """The beginning of a text that is longer than `most` characters."""
    return text if len(text) <= most else f"{text[:most]} …"


UNKNOWN = View()
"""The view of a run directory that names no task yet."""
