"""Scores a language model: the loss on the answers that were written, and the answers that it writes itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy

from ..models.precision import Precision
from ..tasks.causal_lm import CausalLM, perplexity
from ..types import Conversation, Encoded, Message
from .text_metrics import text_metrics

BOOTSTRAP_SAMPLES = 1_000


class Written(Protocol):
    """An answer that a model wrote."""

    @property
    def text(self) -> str: ...
    @property
    def num_tokens(self) -> int: ...
    @property
    def ended(self) -> bool: ...
    @property
    def looped(self) -> bool: ...


Write = Callable[[Sequence[Sequence[Message]]], Sequence[Written]]
"""Answers conversations that end with a question."""


@dataclass(frozen=True)
class Asked:
    """A question of the data with every answer that the data give to it."""

    messages: tuple[Message, ...]
    references: list[str]
    row: int


def questions(examples: Sequence[Conversation], most: int) -> list[Asked]:
    """The first `most` different questions, in the order of the data. A plain text asks nothing."""
    found: dict[tuple[str, ...], Asked] = {}
    for example in examples:
        if example.messages[-1].role != "assistant":
            continue
        if example.key in found:
            found[example.key].references.append(example.answer)
        elif len(found) < most:
            found[example.key] = Asked(example.messages[:-1], [example.answer], example.row)
    return list(found.values())


def score(
    model: Any, task: CausalLM, encoded: Encoded, asked: Sequence[Asked], write: Write, precision: Precision
) -> tuple[dict[str, Any], list[Written]]:
    """`metrics` of eval_results.json, of a model in eval mode, and the answers that it wrote."""
    losses, correct, targets = task.sums(model, encoded.features, precision)
    loss = sum(losses) / sum(targets)
    low, high = _bootstrap_loss(losses, targets)
    metrics = {
        "loss": loss,
        "loss_interval": [low, high],
        "perplexity": perplexity(loss),
        "perplexity_interval": [perplexity(low), perplexity(high)],
        "token_accuracy": sum(correct) / sum(targets),
        "num_target_tokens": sum(targets),
        "generation": None,
    }
    answers: list[Written] = []
    if asked:
        started = time.perf_counter()
        answers = list(write([question.messages for question in asked]))
        seconds = time.perf_counter() - started
        metrics["generation"] = _generation_metrics(answers, asked, seconds)
    return metrics, answers


def _generation_metrics(answers: Sequence[Written], asked: Sequence[Asked], seconds: float) -> dict[str, Any]:
    num_tokens = sum(answer.num_tokens for answer in answers)
    return {
        "num_prompts": len(answers),
        **text_metrics([answer.text for answer in answers], [question.references for question in asked]),
        "ended": sum(answer.ended for answer in answers) / len(answers),
        "looped": sum(answer.looped for answer in answers) / len(answers),
        "mean_new_tokens": num_tokens / len(answers),
        "tokens_per_second": round(num_tokens / seconds, 1),
    }


def samples(
    asked: Sequence[Asked], tuned: Sequence[Written], base: Sequence[Written] | None, most: int = 20
) -> list[dict[str, Any]]:
    """The first questions with the references and what each model answered."""
    return [
        {
            "prompt": question.messages[-1].content,
            "references": question.references[:3],
            "tuned": answer.text,
            "base": None if base is None else base[index].text,
            "row": question.row,
            "ended": answer.ended,
        }
        for index, (question, answer) in enumerate(zip(asked[:most], tuned[:most], strict=True))
    ]


def _bootstrap_loss(losses: Sequence[float], targets: Sequence[int]) -> tuple[float, float]:
    """95 % percentile interval of the mean loss over resampled examples (1,000 resamples, seed 0)."""
    sums, counts = numpy.array(losses), numpy.array(targets)
    generator = numpy.random.default_rng(0)
    draws = []
    for _ in range(BOOTSTRAP_SAMPLES):
        rows = generator.integers(0, len(sums), len(sums))
        draws.append(sums[rows].sum() / counts[rows].sum())
    low, high = numpy.percentile(draws, [2.5, 97.5])
    return float(low), float(high)
