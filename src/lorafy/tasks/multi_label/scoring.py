"""The figures of several labels a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from ...evaluation.metrics import bootstrap_intervals, wilson_interval
from ...metrics import Metric, numbers
from ...types import Features

DECISIONS = Metric("label_accuracy", "label accuracy", "yes or no right, over texts and labels", numbers.percent)
F1_MICRO = Metric("f1_micro", "micro F1", "F1 over all texts and labels together", numbers.percent)
F1_MACRO = Metric("f1_macro", "macro F1", "F1 of each label, their mean", numbers.percent)
SUBSET = Metric("subset_accuracy", "subset accuracy", "texts with exactly the right labels", numbers.percent)
THRESHOLD = Metric("threshold", "threshold", "the probability from which a label is said", numbers.figure, None)


def truth_of(features: Sequence[Features]) -> torch.Tensor:
    """The true labels (N, C), 0 or 1, of N texts."""
    return torch.tensor([feature.labels for feature in features])


def counts(said: torch.Tensor, truth: torch.Tensor, per_text: bool = False) -> torch.Tensor:
    """Counts (3, C): for each label, how often it was rightly said, said, and there. per_text: (N, 3, C), not
    summed."""
    there = truth > 0
    each = torch.stack([said & there, said, there], 1).long()
    return each if per_text else each.sum(0)


def f1_of(counted: torch.Tensor) -> dict[str, float]:
    """Micro and macro F1 of `counts`; a label that is neither said nor there takes no part in the mean."""
    right, said, there = counted.double()
    each = each_f1(counted)
    shown = (said + there) > 0
    micro = 2 * right.sum() / (said.sum() + there.sum()).clamp(min=1)
    macro = each[shown].mean() if shown.any() else torch.tensor(0.0)
    return {"f1_micro": micro.item(), "f1_macro": macro.item()}


def each_f1(counted: torch.Tensor) -> torch.Tensor:
    """F1 (C,) of each label of `counts`; 0 where it is neither said nor there."""
    right, said, there = counted.double()
    return 2 * right / (said + there).clamp(min=1)


def share_right(said: torch.Tensor, truth: torch.Tensor) -> float:
    """The share of right decisions, over texts and labels."""
    return (said == (truth > 0)).double().mean().item()


def exactly_right(said: torch.Tensor, truth: torch.Tensor) -> float:
    """The share of texts whose labels are all right."""
    return (said == (truth > 0)).all(1).double().mean().item()


def best_threshold(outputs: torch.Tensor, truth: torch.Tensor) -> float:
    """The threshold with the best micro F1, between 0.05 and 0.95 in steps of 0.05; the nearest to a half on a tie."""
    shares = outputs.double().sigmoid()
    steps = sorted((round(0.05 * step, 2) for step in range(1, 20)), key=lambda value: abs(value - 0.5))
    return max(steps, key=lambda value: f1_of(counts(shares >= value, truth))["f1_micro"])


def figures(outputs: torch.Tensor, truth: torch.Tensor, label_names: Sequence[str], threshold: float) -> dict[str, Any]:
    """eval_results.json's metrics. outputs: (N, C), fp32; truth: (N, C) of 0 and 1.

    Intervals of F1 are a bootstrap over texts (1,000 resamples, seed 0), that of subset accuracy is Wilson's.
    """
    said = outputs.double().sigmoid() >= threshold
    right = int((said == (truth > 0)).all(1).sum())
    of_texts = counts(said, truth, per_text=True).numpy()
    intervals = bootstrap_intervals(len(truth), lambda rows: f1_of(torch.from_numpy(of_texts[rows].sum(0))))
    counted = counts(said, truth)
    hits, claims, support = counted.tolist()
    f1 = each_f1(counted).tolist()
    sets = truth.unique(dim=0, return_counts=True)[1]
    return {
        "loss": functional.binary_cross_entropy_with_logits(outputs.double(), truth.double()).item(),
        **f1_of(counted),
        **{f"{key}_interval": bounds for key, bounds in intervals.items()},
        "subset_accuracy": right / len(truth),
        "subset_accuracy_interval": wilson_interval(right, len(truth)),
        "label_accuracy": share_right(said, truth),
        "majority_subset_accuracy": int(sets.max()) / len(truth),
        "threshold": threshold,
        "per_label": {
            name: {
                "precision": hits[index] / max(claims[index], 1),
                "recall": hits[index] / max(support[index], 1),
                "f1": f1[index],
                "support": support[index],
            }
            for index, name in enumerate(label_names)
        },
    }
