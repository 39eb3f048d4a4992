"""Texts in, labels with probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..models.precision import Precision
from ..tasks.classification import Classification
from ..types import Example


@dataclass(frozen=True)
class Prediction:
    """`probabilities` maps every label name to its softmax probability; `probability` is the predicted label's."""

    text: str
    label: str
    probability: float
    probabilities: dict[str, float]
    truncated: bool = False


def classify(
    model: Any, task: Classification, texts: Sequence[str | tuple[str, str]], precision: Precision
) -> list[Prediction]:
    """`model` is in eval mode on the precision's device."""
    pairs = [(text, None) if isinstance(text, str) else text for text in texts]
    examples = [Example(first, None, "input", row, second) for row, (first, second) in enumerate(pairs, start=1)]
    features = task.encode(examples).features
    scores = task.scores(model, features, precision)
    predictions = []
    for example, feature, row in zip(examples, features, scores.double().softmax(-1), strict=True):
        best = int(row.argmax())
        probabilities = {name: row[index].item() for index, name in enumerate(task.label_names)}
        label = task.label_names[best]
        predictions.append(Prediction(example.text, label, probabilities[label], probabilities, feature.truncated))
    return predictions
