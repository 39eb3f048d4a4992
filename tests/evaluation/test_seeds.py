"""Means over seeds, and differences seed by seed."""

import numpy as np
import pytest
from scipy import stats

from lorafy.evaluation.seeds import mean_difference, mean_interval


def test_the_interval_is_students() -> None:
    values = [0.81, 0.84, 0.82]
    mean, interval = mean_interval(values)
    expected = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert mean == pytest.approx(0.8233333)
    assert interval == pytest.approx(list(expected))


def test_one_run_has_no_interval() -> None:
    assert mean_interval([0.5]) == (0.5, None)
    assert mean_difference({1: 0.5}, {1: 0.4}) is None
    assert mean_difference({1: 0.5, 2: 0.6}, {3: 0.4}) is None


def test_what_a_seed_does_to_both_falls_out() -> None:
    """Seeds move both by 10 points, the methods differ by one: the pairs show it, the means do not."""
    one, other = {1: 0.61, 2: 0.71, 3: 0.812}, {1: 0.60, 2: 0.70, 3: 0.80, 4: 0.1}
    found = mean_difference(one, other)
    assert found is not None
    mean, (low, high) = found
    assert mean == pytest.approx(0.032 / 3) and 0.007 < low < high < 0.015
    assert mean_interval(list(one.values()))[1][0] < 0.60  # type: ignore[index]


def test_95_of_100_intervals_hold_the_truth() -> None:
    random = np.random.default_rng(0)
    held = []
    for _ in range(2000):
        interval = mean_interval([float(value) for value in random.normal(size=3)])[1]
        assert interval is not None
        held.append(interval[0] <= 0 <= interval[1])
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)
