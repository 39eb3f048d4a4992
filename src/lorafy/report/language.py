"""What is shown of a language model: its figures beside the base model's, and what both of them answer."""

from __future__ import annotations

from typing import Any

from ..metrics import (
    ANSWER_LENGTH,
    ANSWER_SPEED,
    BLEU,
    CHRF,
    ENDED,
    EXACT_MATCH,
    LOGGED_TOKEN_ACCURACY,
    LOOPED,
    PERPLEXITY,
    ROUGE_L,
    TOKEN_ACCURACY,
    TOKEN_LOSS,
    Metric,
    numbers,
)
from .sections import Cell, Column, Said, Sample, Samples, Section, Shown, Table
from .view import View

MAX_SAMPLES = 12
MAX_PROMPT = 600
MAX_ANSWER = 400
"""The most characters of an answer: it stands in a column, a prompt above them all."""

A_TENTH = 0.1
"""A share of the answers. From here on a fault of theirs is said in the verdict; a rarer one stands in the table."""

CAPTIONS = {
    "loss": "Loss per target token: blue on the train split (smoothed where a thin line shows every logged "
    "step), orange on the validation split. The ring is the step that was kept.",
    "accuracy": "Share of target tokens that the model ranks first, given the right text before them. On the train "
    "split it is measured during the step, with dropout. The ring is the step that was kept, for its loss.",
    "compare": "The same data, seed and evaluation for every method. A lower perplexity is better.",
}
ON_TARGETS = (PERPLEXITY, TOKEN_LOSS, TOKEN_ACCURACY)
AGAINST_REFERENCES = (EXACT_MATCH, BLEU, CHRF, ROUGE_L)
OF_ANSWERS = (ENDED, LOOPED, ANSWER_LENGTH, ANSWER_SPEED)


class LanguageView(View):
    """Perplexity on the answers that were written, and the answers that the model writes itself."""

    metrics = (*ON_TARGETS, *AGAINST_REFERENCES, *OF_ANSWERS)
    compared = (*ON_TARGETS, *AGAINST_REFERENCES)
    logged = (PERPLEXITY, LOGGED_TOKEN_ACCURACY)
    curve = LOGGED_TOKEN_ACCURACY
    has_base = True
    tabulated = True
    best_by_loss = True
    commands = (
        ("talk to it", "lorafy chat {run}"),
        ("ask it", 'lorafy generate {run} --prompt "text"'),
    )

    @property
    def brief(self) -> tuple[Metric, ...]:
        """Perplexity and chrF: the loss would say no more than the perplexity; chrF is of the answers."""
        return PERPLEXITY, CHRF

    def flat(self, metrics: Any) -> dict[str, Any]:
        """Metrics by key, those of the written answers among them."""
        metrics = metrics or {}
        return {**(metrics.get("generation") or {}), **metrics}

    def said(self, results: dict[str, Any]) -> str:
        """The result as a sentence, with the base model's perplexity where it was measured."""
        base = PERPLEXITY.value(results.get("base"))
        text = super().said(results)
        if base is None or PERPLEXITY.value(results["metrics"]) is None:
            return text
        return f"{text}, the base model's is {PERPLEXITY.write(base)}"

    def gained(self, results: dict[str, Any]) -> bool:
        """Whether its perplexity is lower than its base's; True where one of them was not measured."""
        tuned, base = PERPLEXITY.value(results["metrics"]), PERPLEXITY.value(results.get("base"))
        return tuned is None or base is None or tuned < base

    def detail(self, results: dict[str, Any]) -> str:
        """Sentences on whether it is better than the base model, and on what is wrong with its answers."""
        metrics, base = results["metrics"], results.get("base") or {}
        if PERPLEXITY.value(metrics) is None:
            return ""
        said = ["Lower is better."]
        if PERPLEXITY.value(base) is None:
            said.append("The base model was not measured, so that what training gained is not known.")
        elif not self.gained(results):
            said = ["That is no better than the untrained base model."]
        elif overlap(PERPLEXITY.bounds(metrics), PERPLEXITY.bounds(base)):
            said.append("The two intervals overlap: the difference may be chance.")
        answers = metrics.get("generation") or {}
        if (LOOPED.value(answers) or 0.0) >= A_TENTH:
            said.append(f"{LOOPED.write(answers['looped'])} of its answers say the same again and again.")
        if ENDED.value(answers) is not None and 1 - answers["ended"] >= A_TENTH:
            said.append(f"{numbers.percent(1 - answers['ended'])} of its answers did not end by themselves.")
        return " ".join(said)

    def results(self, results: dict[str, Any]) -> list[Section]:
        """Every figure of the tuned and of the base model, the better one marked; then sample answers."""
        found: list[Section] = []
        models = [self.flat(results.get("metrics"))]
        if results.get("base"):
            models.append(self.flat(results["base"]))
        rows = []
        for metric in self.metrics:
            values = [metric.value(model) for model in models]
            if any(value is not None for value in values):
                marks = metric.best(values)
                figures = [
                    Cell(metric.write(value), metric.interval(model), mark)
                    for value, model, mark in zip(values, models, marks, strict=True)
                ]
                title = Cell(metric.title, f"{metric.arrow} {metric.direction}".strip())
                rows.append([title, *figures, Cell(metric.meaning)])
        if rows:
            names = ["tuned", "base, untrained"][: len(models)]
            columns = [Column("figure", "name"), *(Column(name, "number") for name in names)]
            found.append(
                Table(
                    "Base and tuned side by side" if len(models) > 1 else "What was measured",
                    [*columns, Column("what it means", "meaning")],
                    rows,
                    note=f"{self.measured_on(results)}; with 95 % intervals",
                    below="" if len(models) > 1 else "The base model was not measured.",
                )
            )
        answers = samples(results)
        return [*found, Samples(answers)] if answers else found

    def measured_on(self, results: dict[str, Any]) -> str:
        """`200 test examples, 5,120 target tokens, 50 prompts answered`."""
        tuned = self.flat(results.get("metrics"))
        facts = [f"{numbers.count(results['num_examples'])} {results['split']} examples"]
        if results.get("num_skipped"):
            facts.append(f"{numbers.count(results['num_skipped'])} skipped")
        if tuned.get("num_target_tokens") is not None:
            facts.append(f"{numbers.count(tuned['num_target_tokens'])} target tokens")
        if tuned.get("num_prompts") is not None:
            facts.append(f"{numbers.count(tuned['num_prompts'])} prompts answered")
        return ", ".join(facts)

    def of_comparison(self, rows: list[dict[str, Any]]) -> list[Section]:
        """What every method answered to the same prompts."""
        answers = compared_samples(rows)
        return [Samples(answers)] if answers else []

    def comparison_row(self, results: dict[str, Any], voice: str) -> dict[str, Any]:
        """What compare_results.json keeps of a result, with the sample answers."""
        said = "tuned" if voice == "metrics" else "base"
        answers = [
            {
                "prompt": sample["prompt"],
                "reference": sample["references"][0],
                "answer": sample[said],
                **({"pictures": sample["pictures"]} if sample.get("pictures") else {}),
            }
            for sample in results["samples"]
        ]
        return super().comparison_row(results, voice) | {"samples": answers}

    def caption(self, name: str) -> str:
        """The caption of a plot that every task has."""
        return CAPTIONS.get(name) or super().caption(name)


def overlap(one: Any, other: Any) -> bool:
    """Whether two intervals share a point."""
    return bool(one and other and one[0] <= other[1] and other[0] <= one[1])


def samples(results: dict[str, Any]) -> list[Sample]:
    """The first prompts with references, base and tuned answer."""
    found = []
    for sample in (results.get("samples") or [])[:MAX_SAMPLES]:
        columns = references(sample.get("references") or [])
        if sample.get("base") is not None:
            columns.append(Said("base model", "base", shortened(sample["base"])))
        columns.append(Said("tuned model", "tuned", shortened(sample["tuned"]), sample.get("ended", True)))
        found.append(Sample(without_middle(sample["prompt"]), columns, sample.get("row"), shown(sample)))
    return found


def compared_samples(rows: list[dict[str, Any]]) -> list[Sample]:
    """One column a method, below the prompts that any of them answered."""
    answers: dict[tuple[str, str | None, tuple[Shown, ...]], list[Said]] = {}
    for row in rows:
        kind = "base" if row["method"] == "base" else "tuned"
        for sample in row.get("samples") or []:
            reference = sample.get("reference")
            key = (sample["prompt"], reference, shown(sample))
            columns = answers.setdefault(key, references([] if reference is None else [reference]))
            columns.append(Said(row.get("title", row["method"]), kind, shortened(sample["answer"])))
    return [
        Sample(without_middle(prompt), columns, pictures=pictures)
        for (prompt, _, pictures), columns in list(answers.items())[:MAX_SAMPLES]
    ]


JPEG = "data:image/jpeg;base64,"


def shown(sample: dict[str, Any]) -> tuple[Shown, ...]:
    """The pictures of a prompt. What is no small jpeg of ours is named alone: the page loads nothing."""
    return tuple(
        Shown(picture["name"], picture["thumbnail"] if picture["thumbnail"].startswith(JPEG) else "")
        for picture in sample.get("pictures") or []
    )


def references(texts: list[str]) -> list[Said]:
    """One column for all of them: the answers stay beside each other, whatever their number."""
    if not texts:
        return []
    name = "reference" if len(texts) == 1 else f"{len(texts)} references"
    return [Said(name, "reference", "\n\n".join(map(shortened, texts)))]


def shortened(text: str) -> str:
    """The beginning of an answer, where it is longer than MAX_ANSWER characters."""
    text = text.strip()
    return text if len(text) <= MAX_ANSWER else f"{text[:MAX_ANSWER]} …"


def without_middle(prompt: str) -> str:
    """A prompt's end leads over to the answer, so that a long one loses its middle."""
    prompt = prompt.strip()
    if len(prompt) <= MAX_PROMPT:
        return prompt
    tail = MAX_PROMPT // 3
    return f"{prompt[: MAX_PROMPT - tail]} […] {prompt[-tail:]}"
