"""What the logs say, ready to be drawn: arrays of finite numbers over rising steps or seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a plot: finite numbers y over rising x, both (N,)."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


def metric(lines: list[dict[str, Any]], split: str, key: str) -> Series:
    """One metric over steps. A step that was trained again after a resume counts with its last line."""
    points = {line["step"]: line.get(key) for line in lines if line["split"] == split}
    return to_series(sorted(points.items()))


def samples(lines: list[dict[str, Any]], key: str) -> Series:
    """One hardware figure over seconds. A clock that a resume set back goes on from where it stood."""
    points, offset, before = [], 0.0, 0.0
    for line in lines:
        seconds = line["seconds"]
        if seconds < before:
            offset += before
        before = seconds
        points.append((offset + seconds, line.get(key)))
    return to_series(points)


def to_series(points: list[tuple[float, float | None]]) -> Series:
    """The points whose y is a finite number; the others are left out."""
    kept = [(x, y) for x, y in points if y is not None and math.isfinite(y)]
    return Series(np.array([x for x, _ in kept], float), np.array([y for _, y in kept], float))


def smoothed(series: Series) -> Series:
    """A Gaussian mean around each point, about 1/20 of all points wide.

    Unlike a running mean of the past it does not lag; at both ends it is taken over what is there.
    """
    sigma = max(len(series) / 40, 1.0)
    reach = min(math.ceil(3 * sigma), (len(series) - 1) // 2)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weighted = np.convolve(series.y, kernel, mode="same")
    return Series(series.x, weighted / np.convolve(np.ones(len(series)), kernel, mode="same"))
