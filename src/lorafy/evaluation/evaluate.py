"""Scores a split and says where the model is most wrong."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from ..models.precision import Precision
from ..tasks.classification import Classification, class_indices
from ..types import Example
from .metrics import classification_metrics

NUM_MISTAKES = 20


def evaluate(model: Any, task: Classification, examples: Sequence[Example], precision: Precision) -> dict[str, Any]:
    """eval_results.json's metrics, worst mistakes and times, of a model in eval mode. Every example needs a label."""
    started = time.perf_counter()
    features = task.encode(examples).features
    scores = task.scores(model, features, precision)
    seconds = time.perf_counter() - started
    labels = class_indices(features)
    return {
        "num_examples": len(examples),
        "num_truncated": sum(feature.truncated for feature in features),
        "labels": list(task.label_names),
        "metrics": classification_metrics(scores, labels, task.label_names),
        "mistakes": worst_mistakes(scores, labels, examples, task.label_names),
        "seconds": round(seconds, 3),
        "examples_per_second": round(len(examples) / seconds, 1),
    }


def worst_mistakes(
    scores: torch.Tensor, labels: torch.Tensor, examples: Sequence[Example], label_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Wrong predictions, the most confident first."""
    probabilities = scores.double().softmax(-1)
    confidence, predicted = probabilities.max(-1)
    wrong = (predicted != labels).nonzero().flatten().tolist()
    wrong.sort(key=lambda index: -confidence[index].item())
    return [
        {
            "text": examples[index].text,
            "text_pair": examples[index].text_pair,
            "label": examples[index].label,
            "predicted": label_names[int(predicted[index])],
            "probability": confidence[index].item(),
            "source": examples[index].source,
            "row": examples[index].row,
        }
        for index in wrong[:NUM_MISTAKES]
    ]
