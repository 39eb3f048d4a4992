"""Which examples make a step, and how a step is cut into micro-batches. Pure functions of lengths and seed."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MICRO_BATCH_COST_TOKENS = 256
"""Cost in tokens of one more forward and backward, beside its own tokens (see docs/log.md for the measurement)."""

FEWEST_EPOCHS, MOST_EPOCHS, FEWEST_STEPS = 3, 10, 150
"""Bounds of the default number of epochs, and the steps it should reach: a few hundred examples learn nothing in three
passes (see docs/log.md)."""


@dataclass
class StepPlan:
    """The order of examples: each epoch visits every example once, in an order that seed and epoch decide.

    `step` counts from 0 over the whole run. The last step of an epoch may be smaller; no example is dropped.
    """

    num_examples: int
    batch_size: int
    seed: int
    _epoch: int = field(default=-1, init=False)
    _order: list[int] = field(default_factory=list, init=False)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch, rounded up."""
        return math.ceil(self.num_examples / self.batch_size)

    def num_steps(self, num_epochs: float | None, max_steps: int | None) -> int:
        """Optimizer steps of the whole run. Without a wish: 3 epochs, up to 10 where 3 are fewer than 150 steps."""
        if num_epochs is None:
            num_epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, math.ceil(FEWEST_STEPS / self.steps_per_epoch)))
        return max_steps or max(1, round(num_epochs * self.steps_per_epoch))

    def examples(self, step: int) -> list[int]:
        """Indices of the step's examples, over all processes: `batch_size` of them, fewer in an epoch's last step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order = list(range(self.num_examples))
            random.Random(f"order {self.seed} {epoch}").shuffle(self._order)
            self._epoch = epoch
        start = position * self.batch_size
        return self._order[start : start + self.batch_size]


def dropout_seed(seed: int, number: int) -> int:
    """The seed of a step's dropout masks, 63 bits. number: step x processes + this process's index.

    A digest of both, written down: it is the same in every Python, and neighbours have nothing in common.
    """
    digest = hashlib.blake2b(f"dropout {seed} {number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def micro_batches(
    indices: Sequence[int], lengths: Mapping[int, int], *, max_tokens: int, max_examples: int | None = None
) -> list[list[int]]:
    """Cuts a step where that costs least: examples sorted by length, cut into runs by dynamic programming.

    A run of n examples whose longest has T tokens costs n * T + MICRO_BATCH_COST_TOKENS. No run exceeds
    `max_tokens` padded tokens (one example may, alone) or `max_examples`. How a step is cut does not change its
    gradient (at dropout 0), because losses are sums that are divided once a step.
    """
    order = sorted(indices, key=lambda index: (lengths[index], index))
    cheapest = [0.0] + [math.inf] * len(order)
    start_of = [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        for start in range(end - 1, -1, -1):
            count = end - start
            if count > 1 and (count * longest > max_tokens or (max_examples and count > max_examples)):
                break
            cost = cheapest[start] + count * longest + MICRO_BATCH_COST_TOKENS
            if cost < cheapest[end]:
                cheapest[end], start_of[end] = cost, start
    runs, end = [], len(order)
    while end:
        runs.append(order[start_of[end] : end])
        end = start_of[end]
    return runs[::-1]
