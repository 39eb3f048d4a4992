"""Classification metrics (scikit-learn's), with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
import torch
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support
from torch.nn import functional

from ..types import Features

BOOTSTRAP_SAMPLES = 1_000
Z_95 = 1.959964  # normal quantile of a two-sided 95 % interval


def classification_metrics(scores: torch.Tensor, labels: torch.Tensor, label_names: Sequence[str]) -> dict[str, Any]:
    """`metrics` of eval_results.json. scores: logits (N, C); labels: (N,) class indices.

    `accuracy_interval` is Wilson's 95 % interval, `f1_macro_interval` a bootstrap of 1,000 resamples (seed 0).
    A class that occurs neither in labels nor in predictions has F1 0 and takes no part in the macro average.
    """
    truth, predicted = labels.numpy(), scores.argmax(-1).numpy()
    classes = list(range(len(label_names)))
    present = sorted(set(truth) | set(predicted))
    precision, recall, f1, support = precision_recall_fscore_support(truth, predicted, labels=classes, zero_division=0)
    matrix = confusion_matrix(truth, predicted, labels=classes)
    num_correct, total = int((truth == predicted).sum()), len(truth)
    return {
        **quick_metrics(scores, labels),
        "accuracy_interval": wilson_interval(num_correct, total),
        "f1_macro": float(numpy.mean(f1[present])),
        "f1_macro_interval": _bootstrap_f1(truth, predicted, present),
        "f1_weighted": float(numpy.average(f1, weights=support)),
        "precision_macro": float(numpy.mean(precision[present])),
        "recall_macro": float(numpy.mean(recall[present])),
        "majority_accuracy": float(numpy.bincount(truth).max() / total),
        "per_class": {
            name: {
                "precision": float(precision[index]),
                "recall": float(recall[index]),
                "f1": float(f1[index]),
                "support": int(support[index]),
            }
            for index, name in enumerate(label_names)
        },
        "confusion_matrix": matrix.tolist(),
    }


def wilson_interval(num_correct: int, total: int) -> list[float]:
    """Wilson's 95 % score interval of a proportion (Wilson 1927); sound near 100 %, where the normal one is not."""
    share, z2 = num_correct / total, Z_95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return [max(0.0, centre - half), min(1.0, centre + half)]


def bootstrap_intervals(
    num_rows: int, measure: Callable[[numpy.ndarray], Mapping[str, float]]
) -> dict[str, list[float]]:
    """95 % percentile intervals of what `measure` says of rows drawn with replacement (1,000 resamples, seed 0)."""
    generator = numpy.random.default_rng(0)
    draws = [measure(generator.integers(0, num_rows, num_rows)) for _ in range(BOOTSTRAP_SAMPLES)]
    bounds = {key: numpy.percentile([draw[key] for draw in draws], [2.5, 97.5]) for key in draws[0]}
    return {key: [float(low), float(high)] for key, (low, high) in bounds.items()}


def _bootstrap_f1(truth: numpy.ndarray, predicted: numpy.ndarray, present: list[int]) -> list[float]:
    """Percentile interval of macro F1 over resampled confusion counts, each draw's mean over the classes it shows."""
    generator = numpy.random.default_rng(0)
    size = max(present) + 1
    matrix = numpy.bincount(truth * size + predicted, minlength=size * size)
    draws = generator.multinomial(len(truth), matrix / len(truth), size=BOOTSTRAP_SAMPLES).reshape(-1, size, size)
    hits = draws.diagonal(axis1=1, axis2=2)[:, present]
    claimed, actual = draws.sum(1)[:, present], draws.sum(2)[:, present]
    shown = (claimed + actual) > 0
    f1 = 2 * hits / numpy.maximum(claimed + actual, 1)
    low, high = numpy.percentile(f1.sum(1) / shown.sum(1), [2.5, 97.5])
    return [float(low), float(high)]


def class_indices(features: Sequence[Features]) -> torch.Tensor:
    """The classes of texts as indices (N,)."""
    return torch.tensor([feature.labels[0] for feature in features])


def quick_metrics(scores: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Metrics of a validation: mean loss over texts, accuracy, macro F1. scores: logits (N, C); labels: (N,)."""
    predicted = scores.argmax(-1)
    return {
        "loss": functional.cross_entropy(scores.double(), labels).item(),
        "accuracy": (predicted == labels).double().mean().item(),
        "f1_macro": float(f1_score(labels, predicted, average="macro", zero_division=0)),
    }
