"""A batch without padding: the tokens of all its sequences one behind the other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch

from ..kernels.reference import row_keys
from ..types import Batch, Features

MAX_TOKENS = 2_048
"""Of one micro-batch: products are no faster beyond (docs/log.md), activations take more memory."""


def cut(lengths: Sequence[int], max_examples: int | None = None, most: int = MAX_TOKENS) -> list[list[int]]:
    """Positions of `lengths` in few runs of near-equal size.

    None is above `most` tokens, but a sequence longer than that, or above `max_examples`.
    """
    total = sum(lengths)
    target = total / max(1, -(-total // most))
    max_examples = max_examples or len(lengths)
    runs: list[list[int]] = []
    tokens = most
    for position, length in enumerate(lengths):
        if tokens + length > most or tokens >= target or len(runs[-1]) == max_examples:
            runs.append([])
            tokens = 0
        runs[-1].append(position)
        tokens += length
    return runs


def rounded(num_tokens: int) -> int:
    """Rows of a batch: oneDNN compiles its products for each number of rows, so there are few."""
    step = 16 if num_tokens <= 512 else 64
    return -(-num_tokens // step) * step


def pack(features: Sequence[Features], numbers: Sequence[int], seed: int | None, labels: Sequence[int]) -> Batch:
    """Inputs: input_ids, position_ids, token_type_ids (M,); starts (B + 1,) and, with a seed, keys (M,), int32.

    M is rounded up; rows behind the last sequence belong to none. numbers: which training examples these are; with
    the seed and the token's place they decide every dropout mask.
    """
    lengths = [len(feature) for feature in features]
    total = sum(lengths)
    spare = rounded(total) - total
    starts = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    positions = torch.cat([*(torch.arange(length) for length in lengths), torch.zeros(spare, dtype=torch.long)])
    inputs = {
        "input_ids": torch.tensor([*chain.from_iterable(feature.input_ids for feature in features), *[0] * spare]),
        "position_ids": positions,
        "starts": starts,
    }
    if any(feature.token_type_ids is not None for feature in features):
        types = [feature.token_type_ids or [0] * len(feature) for feature in features]
        inputs["token_type_ids"] = torch.tensor([*chain.from_iterable(types), *[0] * spare])
    if seed is not None:
        inputs["keys"] = row_keys(seed, [*numbers, 0], positions, [*lengths, spare])
    return Batch(inputs, torch.tensor(labels), [feature.row for feature in features])
