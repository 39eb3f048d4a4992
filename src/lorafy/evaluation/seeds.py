"""Runs that differ in their seed alone: their mean, and the difference to others seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats


def mean_interval(values: Sequence[float]) -> tuple[float, list[float] | None]:
    """The mean of n runs, and Student's 95 % interval: mean -+ t(0.975, n - 1) s / sqrt(n). None for one run."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    reach = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, [mean - reach, mean + reach]


def mean_difference(values: Mapping[int, float], others: Mapping[int, float]) -> tuple[float, list[float]] | None:
    """How much greater `values` are than `others`, seed by seed, with the interval of `mean_interval`: what a seed does
    to both falls out. None where fewer than two seeds are in both."""
    seeds = sorted(set(values) & set(others))
    mean, interval = mean_interval([values[seed] - others[seed] for seed in seeds]) if seeds else (0.0, None)
    return None if interval is None else (mean, interval)
