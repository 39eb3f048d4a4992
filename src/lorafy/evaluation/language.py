"""Scores a language model: the loss on the answers that were written, and the answers that it writes itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy
import torch

from ..encoding.conversations import ConversationEncoder
from ..encoding.lengths import of_like_length
from ..models.precision import Precision
from ..objectives.tokens import token_losses
from ..pictures.placing import as_written
from ..pictures.thumbnail import thumbnail
from ..types import Conversation, Encoded, Features, Message
from .text_metrics import text_metrics

BOOTSTRAP_SAMPLES = 1_000
SCORE_TOKENS = 2_048
"""The most padded tokens of one forward pass without gradients."""


class Written(Protocol):
    """An answer that a model wrote."""

    @property
    def text(self) -> str:
        """What the model wrote, unedited, without the token that ends it."""
        ...

    @property
    def num_tokens(self) -> int:
        """Tokens that the model wrote, without the one that ends the answer."""
        ...

    @property
    def ended(self) -> bool:
        """Whether it came to its end by itself."""
        ...

    @property
    def looped(self) -> bool:
        """Whether it was stopped because it repeated itself."""
        ...


Write = Callable[[Sequence[Sequence[Message]]], Sequence[Written]]
"""A function from conversations that end with a question to one answer each."""


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


def token_sums(
    model: Any, encoder: ConversationEncoder, features: Sequence[Features], precision: Precision, max_tokens: int
) -> tuple[list[float], list[int], list[int]]:
    """For each sequence: the SUM of its targets' losses, how many were predicted right, how many there are. max_tokens:
    the most padded ones of a forward pass. `model` is in eval mode."""
    losses, correct = [0.0] * len(features), [0] * len(features)
    lengths = [len(feature) for feature in features]
    for rows in of_like_length(lengths, encoder.padded_length, min(SCORE_TOKENS, max_tokens)):
        batch = encoder.collate([features[row] for row in rows]).to(precision.device)
        with torch.inference_mode(), precision.autocast():
            batch_losses, batch_correct = token_losses(model, batch)
        sums, hits = batch_losses.double().sum(1).tolist(), batch_correct.sum(1).tolist()
        for row, loss, count in zip(rows, sums, hits, strict=True):
            losses[row], correct[row] = loss, count
    return losses, correct, [feature.num_targets for feature in features]


def perplexity(loss: float) -> float:
    """e to the power of a mean loss per token; what is too great for a float is told as its greatest."""
    return math.exp(min(loss, 700.0))


def score(
    model: Any,
    encoder: ConversationEncoder,
    encoded: Encoded,
    asked: Sequence[Asked],
    write: Write,
    precision: Precision,
    max_tokens: int,
) -> tuple[dict[str, Any], list[Written]]:
    """`metrics` of eval_results.json (the loss is the mean over target tokens), and the answers that were written.
    `model` is in eval mode."""
    losses, correct, targets = token_sums(model, encoder, encoded.features, precision, max_tokens)
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
    """The first questions with the references and what each model answered; with `pictures` where a question shows
    some: their names, and themselves made small."""
    return [
        {
            "prompt": as_written(question.messages[-1]),
            **_shown(question),
            "references": question.references[:3],
            "tuned": answer.text,
            "base": None if base is None else base[index].text,
            "row": question.row,
            "ended": answer.ended,
        }
        for index, (question, answer) in enumerate(zip(asked[:most], tuned[:most], strict=True))
    ]


def _shown(question: Asked) -> dict[str, Any]:
    pictures = [picture for message in question.messages for picture in message.pictures]
    if not pictures:
        return {}
    return {"pictures": [{"name": picture.name, "thumbnail": thumbnail(picture)} for picture in pictures]}


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
