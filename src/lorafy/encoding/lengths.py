"""How long a padded batch is, and which sequences share one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

LENGTH_MULTIPLE = 16
"""Tokens: padded lengths are multiples of it. oneDNN compiles a primitive for every shape it has not seen: few lengths
are faster than exact ones (docs/log.md)."""


def rounded_up(count: int, most: int) -> int:
    """The next multiple of LENGTH_MULTIPLE, in tokens, at most `most`; never below `count`."""
    return max(count, min(-(-count // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, most))


def of_like_length(lengths: Sequence[int], padded_length: Callable[[int], int], max_tokens: int) -> Iterator[list[int]]:
    """Positions of `lengths`, the shortest first, in groups of at most `max_tokens` padded tokens (one alone may have
    more): for forward passes without gradients."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (end - start + 1) * padded_length(lengths[order[end]]) <= max_tokens:
            end += 1
        yield order[start:end]
        start = end
