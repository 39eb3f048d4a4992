"""The figures of predicted numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy
import torch
from scipy import stats

from ...evaluation.metrics import bootstrap_intervals
from ...metrics import Metric, numbers
from ...types import Example, Features

MSE = Metric("mse", "mean squared error", "squared distance of prediction and value, the mean", numbers.figure, False)
MAE = Metric("mae", "mean absolute error", "distance of prediction and value, the mean", numbers.figure, False)
PEARSON = Metric(
    "pearson", "Pearson", "how near predictions and values come to a straight line, -1 to 1", numbers.figure
)
SPEARMAN = Metric("spearman", "Spearman", "how alike predictions and values are ordered, -1 to 1", numbers.figure)
NUM_MISTAKES = 20


def values_of(features: Sequence[Features]) -> torch.Tensor:
    """The true values (N,), in the unit that the features have (training: of `scale`)."""
    return torch.tensor([feature.labels[0] for feature in features], dtype=torch.float64)


def quick_figures(predicted: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """Metrics of a validation, means over texts; both (N,). A correlation with something constant is none: it is left
    out."""
    errors = (predicted.double() - truth.double()).abs()
    correlations = _correlations(predicted.double().numpy(), truth.double().numpy())
    return {
        "mse": errors.square().mean().item(),
        "mae": errors.mean().item(),
        **{key: value for key, value in correlations.items() if value is not None},
    }


def figures(predicted: torch.Tensor, truth: torch.Tensor) -> dict[str, Any]:
    """`metrics` of eval_results.json; both (N,). Intervals: 95 %, a bootstrap over texts (1,000 resamples, seed 0).

    mean_mae: what always predicting the mean of these values would reach. A correlation that cannot be told is None.
    """
    a, b = predicted.double().numpy(), truth.double().numpy()

    def measure(rows: numpy.ndarray) -> dict[str, float]:
        errors = numpy.abs(a[rows] - b[rows])
        correlations = {key: math.nan if r is None else r for key, r in _correlations(a[rows], b[rows]).items()}
        return {"mse": float((errors**2).mean()), "mae": float(errors.mean()), **correlations}

    whole = quick_figures(predicted, truth)
    intervals = bootstrap_intervals(len(b), measure)
    return {
        **{key: whole.get(key) for key in ("mse", "mae", "pearson", "spearman")},
        **{f"{key}_interval": None if math.isnan(sum(bounds)) else bounds for key, bounds in intervals.items()},
        "mean_mae": float(numpy.abs(b - b.mean()).mean()),
    }


def _correlations(a: numpy.ndarray, b: numpy.ndarray) -> dict[str, float | None]:
    """Both correlations, -1 to 1; None where one of the two does not vary."""
    if len(a) < 2 or a.min() == a.max() or b.min() == b.max():
        return {"pearson": None, "spearman": None}
    ranks = stats.rankdata(a), stats.rankdata(b)
    return {"pearson": float(numpy.corrcoef(a, b)[0, 1]), "spearman": float(numpy.corrcoef(*ranks)[0, 1])}


def worst_errors(predicted: torch.Tensor, truth: torch.Tensor, examples: Sequence[Example]) -> list[dict[str, Any]]:
    """The texts whose prediction is farthest off, the farthest first."""
    errors = (predicted - truth).abs()
    return [
        {
            "text": examples[row].text,
            "text_pair": examples[row].text_pair,
            "value": truth[row].item(),
            "predicted": predicted[row].item(),
            "source": examples[row].source,
            "row": examples[row].row,
        }
        for row in errors.argsort(descending=True)[:NUM_MISTAKES].tolist()
    ]
