"""What the page says of a language model: its figures beside the base model's, and what both of them answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import numbers

TASK = "causal_lm"
MAX_SAMPLES = 12
MAX_PROMPT = 600
MAX_ANSWER = 400
"""Characters: an answer stands in a column, a prompt above them all."""

CAPTIONS = {
    "loss": "Loss per target token: blue on the train split (smoothed where a thin line shows every logged "
    "step), orange on the validation split. The ring is the step that was kept.",
    "accuracy": "Share of target tokens that the model ranks first, given the right text before them. On the train "
    "split it is measured during the step, with dropout. The ring is the step that was kept, for its loss.",
    "compare": "The same data, seed and evaluation for every method. A lower perplexity is better.",
}


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of eval_results.json's metrics (or their `generation`). `lower_is_better` None: neither is."""

    key: str
    title: str
    meaning: str
    write: Callable[[float | None], str]
    lower_is_better: bool | None = False

    @property
    def arrow(self) -> str:
        return {True: "↓", False: "↑", None: ""}[self.lower_is_better]

    @property
    def direction(self) -> str:
        return {True: "lower is better", False: "higher is better", None: ""}[self.lower_is_better]

    def interval(self, metrics: dict[str, Any]) -> str:
        """`6.36 to 7.17`, or nothing."""
        bounds = metrics.get(f"{self.key}_interval")
        if not bounds:
            return ""
        return numbers.interval(bounds) if self.write is numbers.percent else " to ".join(map(self.write, bounds))

    def best(self, values: list[float | None]) -> list[bool]:
        """Which of these figures are the best; none where all read the same."""
        known = [value for value in values if value is not None]
        if self.lower_is_better is None or len({self.write(value) for value in known}) < 2:
            return [False] * len(values)
        top = self.write(min(known) if self.lower_is_better else max(known))
        return [value is not None and self.write(value) == top for value in values]


ON_TARGETS = (
    Measure(
        "perplexity",
        "perplexity",
        "between how many equally likely tokens the model wavers: e to the power of the loss",
        numbers.perplexity,
        lower_is_better=True,
    ),
    Measure("loss", "loss", "mean cross-entropy per target token", numbers.figure, lower_is_better=True),
    Measure(
        "token_accuracy",
        "token accuracy",
        "target tokens that the model ranks first, given the right text before them",
        numbers.percent,
    ),
)
AGAINST_REFERENCES = (
    Measure("exact_match", "exact match", "answers that equal a reference", numbers.percent),
    Measure("bleu", "BLEU", "word n-grams shared with a reference, 0 to 100", numbers.score),
    Measure("chrf", "chrF", "character n-grams shared with a reference, 0 to 100", numbers.score),
    Measure("rouge_l", "ROUGE-L", "longest sequence in common with a reference", numbers.percent),
)
OF_ANSWERS = (
    Measure("ended", "ended", "answers that ended by themselves", numbers.percent),
    Measure("looped", "looped", "answers that say the same again and again", numbers.percent, lower_is_better=True),
    Measure("mean_new_tokens", "length", "tokens of an answer, the mean", numbers.score, lower_is_better=None),
    Measure("tokens_per_second", "speed", "tokens answered per second", numbers.score, lower_is_better=None),
)


def is_language_model(*files: dict[str, Any], lines: list[dict[str, Any]]) -> bool:
    """By the task that the first of these files names; before there is one, by the log's perplexity."""
    tasks = [file["task"] for file in files if file.get("task")]
    return tasks[0] == TASK if tasks else any("perplexity" in line for line in lines)


def flattened(metrics: dict[str, Any] | None) -> dict[str, Any]:
    """Metrics with those of the answers among them; empty where there are none."""
    metrics = metrics or {}
    return {**(metrics.get("generation") or {}), **metrics}


def quality_cards(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Title, figure and small lines below it, for what was measured of the tuned model."""
    tuned, base = flattened(results.get("metrics")), flattened(results.get("base"))
    found = []
    for measure in (*ON_TARGETS, *AGAINST_REFERENCES):
        if tuned.get(measure.key) is None:
            continue
        under = []
        if base.get(measure.key) is not None:
            under.append(f"base model {measure.write(base[measure.key])}")
        if measure.interval(tuned):
            under.append(f"95 % interval {measure.interval(tuned)}")
        found.append((measure.title, measure.write(tuned[measure.key]), "\n".join(under)))
    return found


def side_by_side(results: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for every figure of the tuned or the base model, each with whether it is the better one."""
    models = [flattened(results.get("metrics"))]
    if results.get("base"):
        models.append(flattened(results["base"]))
    rows = []
    for measure in (*ON_TARGETS, *AGAINST_REFERENCES, *OF_ANSWERS):
        values = [model.get(measure.key) for model in models]
        if any(value is not None for value in values):
            better = measure.best(values)
            cells = [
                {"text": measure.write(value), "interval": measure.interval(model), "best": best}
                for value, model, best in zip(values, models, better, strict=True)
            ]
            rows.append({"measure": measure, "cells": cells})
    return rows


def measured_on(results: dict[str, Any]) -> str:
    """`200 test examples, 5,120 target tokens, 50 prompts answered`."""
    tuned = flattened(results.get("metrics"))
    facts = [f"{numbers.count(results['num_examples'])} {results['split']} examples"]
    if results.get("num_skipped"):
        facts.append(f"{numbers.count(results['num_skipped'])} skipped")
    if tuned.get("num_target_tokens") is not None:
        facts.append(f"{numbers.count(tuned['num_target_tokens'])} target tokens")
    if tuned.get("num_prompts") is not None:
        facts.append(f"{numbers.count(tuned['num_prompts'])} prompts answered")
    return ", ".join(facts)


def more_tokens(tokens: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Title and key of what preflight.json counts beside the texts' own tokens."""
    columns = [("trained tokens", "targets"), ("skipped", "skipped")]
    return [(title, key) for title, key in columns if any(key in facts for facts in tokens.values())]


def compared(rows: list[dict[str, Any]]) -> list[tuple[Measure, list[tuple[str, bool]]]]:
    """For each measure that any of compare_results.json's rows has: its figure and whether it is the best, by row."""
    columns = []
    for measure in (*ON_TARGETS, *AGAINST_REFERENCES):
        values = [row.get(measure.key) for row in rows]
        if any(value is not None for value in values):
            columns.append((measure, list(zip(map(measure.write, values), measure.best(values), strict=True))))
    return columns


@dataclass(frozen=True, slots=True)
class Said:
    """One column below a prompt. `kind` is reference, base or tuned."""

    who: str
    kind: str
    text: str
    ended: bool = True


@dataclass(frozen=True, slots=True)
class Sample:
    prompt: str
    columns: list[Said]
    row: int | None = None


def samples(results: dict[str, Any]) -> list[Sample]:
    found = []
    for sample in (results.get("samples") or [])[:MAX_SAMPLES]:
        columns = references(sample.get("references") or [])
        if sample.get("base") is not None:
            columns.append(Said("base model", "base", shortened(sample["base"])))
        columns.append(Said("tuned model", "tuned", shortened(sample["tuned"]), sample.get("ended", True)))
        found.append(Sample(without_middle(sample["prompt"]), columns, sample.get("row")))
    return found


def compared_samples(rows: list[dict[str, Any]]) -> list[Sample]:
    """One column a method, below the prompts that any of them answered."""
    answers: dict[tuple[str, str | None], list[Said]] = {}
    for row in rows:
        kind = "base" if row["method"] == "base" else "tuned"
        for sample in row.get("samples") or []:
            reference = sample.get("reference")
            key = (sample["prompt"], reference)
            columns = answers.setdefault(key, references([] if reference is None else [reference]))
            columns.append(Said(numbers.method(row["method"]), kind, shortened(sample["answer"])))
    return [Sample(without_middle(prompt), columns) for (prompt, _), columns in list(answers.items())[:MAX_SAMPLES]]


def references(texts: list[str]) -> list[Said]:
    """One column for all of them: the answers stay beside each other, whatever their number."""
    if not texts:
        return []
    name = "reference" if len(texts) == 1 else f"{len(texts)} references"
    return [Said(name, "reference", "\n\n".join(map(shortened, texts)))]


def shortened(text: str) -> str:
    text = text.strip()
    return text if len(text) <= MAX_ANSWER else f"{text[:MAX_ANSWER]} …"


def without_middle(prompt: str) -> str:
    """A prompt's end leads over to the answer, so that a long one loses its middle."""
    prompt = prompt.strip()
    if len(prompt) <= MAX_PROMPT:
        return prompt
    tail = MAX_PROMPT // 3
    return f"{prompt[: MAX_PROMPT - tail]} […] {prompt[-tail:]}"
