"""What is measured: each figure declared once, with its title, its direction and how it is written.

The terminal, the report, the plots and `lorafy compare` all read it from here, or from the file of the task that
declares a figure of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import numbers


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of eval_results.json's `metrics` (or of a section of them) and of metrics.jsonl.

    key: its name there; an interval of 95 % stands beside it as `<key>_interval`.
    write: how it is written, its unit with it.
    higher_is_better: None where neither is.
    """

    key: str
    title: str
    meaning: str = ""
    write: Callable[[float | None], str] = numbers.figure
    higher_is_better: bool | None = True

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1 and is written in per cent."""
        return self.write is numbers.percent

    @property
    def range(self) -> tuple[float, float]:
        """The least and the most that it can be, as far as its unit tells."""
        if self.is_share:
            return 0.0, 1.0
        return (0.0 if self.write in (numbers.score, numbers.perplexity) else float("-inf")), float("inf")

    @property
    def arrow(self) -> str:
        """Its direction as a sign, for the head of a column."""
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]

    @property
    def direction(self) -> str:
        """Its direction in words."""
        return {True: "higher is better", False: "lower is better", None: ""}[self.higher_is_better]

    def value(self, metrics: Mapping[str, Any] | None) -> float | None:
        """Its figure among `metrics`; None where it was not measured."""
        return (metrics or {}).get(self.key)

    def bounds(self, metrics: Mapping[str, Any] | None) -> Sequence[float] | None:
        """Both ends of its 95 % interval; None where there is none."""
        return (metrics or {}).get(f"{self.key}_interval")

    def interval(self, metrics: Mapping[str, Any] | None) -> str:
        """Its 95 % interval as text, `95.1 to 98.8 %`, or nothing."""
        bounds = self.bounds(metrics)
        if not bounds:
            return ""
        return numbers.interval(bounds) if self.is_share else " to ".join(map(self.write, bounds))

    def difference(self, differences: Mapping[str, Any] | None) -> str:
        """How much greater it is than another one, `+0.42 (-0.10 to +0.94) points`, or nothing."""
        value, bounds = self.value(differences), self.bounds(differences)
        if value is None or bounds is None:
            return ""
        interval = " to ".join(map(self.signed, bounds))
        return f"{self.signed(value)} ({interval}){' points' if self.is_share else ''}"

    def signed(self, value: float) -> str:
        """A difference of two of its values: `+0.42`. Shares: in percentage points."""
        figure = f"{100 * abs(value):.2f}" if self.is_share else self.write(abs(value))
        return figure if not any(digit in figure for digit in "123456789") else f"{'-' if value < 0 else '+'}{figure}"

    def best(self, values: Sequence[float | None]) -> list[bool]:
        """Which of these figures are the best; none where all read the same."""
        known = [value for value in values if value is not None]
        if self.higher_is_better is None or len({self.write(value) for value in known}) < 2:
            return [False] * len(values)
        top = self.write(max(known) if self.higher_is_better else min(known))
        return [value is not None and self.write(value) == top for value in values]

    def rank(self, value: float | None) -> float:
        """A sort key: the greater, the better; what was not measured comes last."""
        if value is None:
            return float("-inf")
        return -value if self.higher_is_better is False else value


LOSS = Metric("loss", "loss", "mean cross-entropy per target", numbers.figure, False)

ACCURACY = Metric("accuracy", "accuracy", "texts whose label was predicted", numbers.percent)
F1_MACRO = Metric("f1_macro", "macro F1", "F1 of each class, their mean", numbers.percent)
F1_WEIGHTED = Metric("f1_weighted", "weighted F1", "the same, each class by its number of texts", numbers.percent)

PERPLEXITY = Metric(
    "perplexity",
    "perplexity",
    "between how many equally likely tokens the model wavers: e to the power of the loss",
    numbers.perplexity,
    False,
)
TOKEN_LOSS = Metric("loss", "loss", "mean cross-entropy per target token", numbers.figure, False)
TOKEN_ACCURACY = Metric(
    "token_accuracy",
    "token accuracy",
    "target tokens that the model ranks first, given the right text before them",
    numbers.percent,
)
LOGGED_TOKEN_ACCURACY = Metric("accuracy", "token accuracy", TOKEN_ACCURACY.meaning, numbers.percent)
"""TOKEN_ACCURACY in metrics.jsonl, where each objective's share of right answers is `accuracy`."""

EXACT_MATCH = Metric("exact_match", "exact match", "answers that equal a reference", numbers.percent)
BLEU = Metric("bleu", "BLEU", "word n-grams shared with a reference, 0 to 100", numbers.score)
CHRF = Metric("chrf", "chrF", "character n-grams shared with a reference, 0 to 100", numbers.score)
ROUGE_L = Metric("rouge_l", "ROUGE-L", "longest sequence in common with a reference", numbers.percent)

ENDED = Metric("ended", "ended", "answers that ended by themselves", numbers.percent)
LOOPED = Metric("looped", "looped", "answers that say the same again and again", numbers.percent, False)
ANSWER_LENGTH = Metric("mean_new_tokens", "length", "tokens of an answer, the mean", numbers.score, None)
ANSWER_SPEED = Metric("tokens_per_second", "speed", "tokens answered per second", numbers.score, None)
