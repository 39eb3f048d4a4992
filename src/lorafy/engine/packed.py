"""A batch without padding: the tokens of all its sequences one behind the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import torch

from ..encoding.texts import label_tensor
from ..kernels.reference import row_seeds
from ..types import IGNORE_INDEX, Batch, Features
from .positions import three_axes

MAX_TOKENS = 2_048
"""Of one micro-batch: products are no faster beyond (docs/log.md), activations take more memory."""


Rounding = Callable[[int], int]
"""The number of rows, at least so many."""


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
    """Rows of a batch on a CPU: oneDNN compiles its products for each number of rows, so there are few."""
    step = 16 if num_tokens <= 512 else 64
    return -(-num_tokens // step) * step


def exactly(num_tokens: int) -> int:
    """Rows of a batch on a GPU: none that is of no sequence."""
    return num_tokens


def pack_texts(
    features: Sequence[Features], numbers: Sequence[int], seed: int | None, round_rows: Rounding = rounded
) -> Batch:
    """Of texts: the inputs of `_tokens`, and what each is labelled with."""
    inputs, longest = _tokens([feature.input_ids for feature in features], numbers, seed, round_rows)
    if any(feature.token_type_ids is not None for feature in features):
        kinds = [feature.token_type_ids or [0] * len(feature) for feature in features]
        spare = len(inputs["input_ids"]) - sum(map(len, kinds))
        inputs["token_type_ids"] = torch.tensor([*chain.from_iterable(kinds), *[0] * spare])
    return Batch(inputs, label_tensor(features), [feature.row for feature in features], longest)


def pack_sequences(
    features: Sequence[Features], numbers: Sequence[int], seed: int | None, round_rows: Rounding = rounded
) -> Batch:
    """Of language models: the inputs of `_tokens` for each sequence less its last token, which nothing follows.

    query_rows (Q,): the rows from each sequence's first target on, none of one without a target; query_starts (B + 1,)
    int32: where they begin. target_rows (K,): which of the query rows predict a target; labels (K,): that target. Q and
    K go through `round_rows`, the last rows being of no sequence and without label. With pictures: position_ids (3, M)
    on three axes, and picture_rows (P,), the rows of their tokens.
    """
    inputs, longest = _tokens([feature.input_ids[:-1] for feature in features], numbers, seed, round_rows)
    starts = inputs["starts"].tolist()
    pictures = [picture for feature in features for picture in feature.pictures]
    if pictures:
        inputs |= _places(features, starts, len(inputs["input_ids"]))
    query_rows: list[int] = []
    query_starts, target_rows, labels = [0], [], []
    for feature, start in zip(features, starts, strict=False):
        following = feature.labels[1:]
        first = next((place for place, label in enumerate(following) if label != IGNORE_INDEX), len(following))
        for place in range(first, len(following)):
            if following[place] != IGNORE_INDEX:
                target_rows.append(len(query_rows))
                labels.append(following[place])
            query_rows.append(start + place)
        query_starts.append(len(query_rows))
    query_rows += [0] * (round_rows(len(query_rows)) - len(query_rows))
    spare = round_rows(len(labels)) - len(labels)
    inputs |= {
        "query_rows": torch.tensor(query_rows),
        "query_starts": torch.tensor(query_starts, dtype=torch.int32),
        "target_rows": torch.tensor(target_rows + [0] * spare),
    }
    labels += [IGNORE_INDEX] * spare
    return Batch(inputs, torch.tensor(labels), [feature.row for feature in features], longest, pictures)


def _places(features: Sequence[Features], starts: Sequence[int], num_rows: int) -> dict[str, torch.Tensor]:
    """position_ids and picture_rows of `pack_sequences`."""
    axes = torch.cat([three_axes(len(feature) - 1, feature.pictures) for feature in features], 1)
    rows = [
        torch.arange(picture.num_tokens) + start + picture.start
        for feature, start in zip(features, starts, strict=False)
        for picture in feature.pictures
    ]
    spare = axes.new_zeros(3, num_rows - axes.shape[1])
    return {"position_ids": torch.cat([axes, spare], 1), "picture_rows": torch.cat(rows)}


def _tokens(
    ids: Sequence[list[int]], numbers: Sequence[int], seed: int | None, round_rows: Rounding
) -> tuple[dict[str, torch.Tensor], int]:
    """input_ids and position_ids (M,); starts (B + 1,) int32; with a seed, seeds (M,) int32. And the longest's tokens.

    M goes through `round_rows`; rows behind the last sequence belong to none. numbers: which training examples these
    are; with the seed and the token's place they give each row's own in `seeds`, which decide every dropout mask.
    """
    lengths = [len(one) for one in ids]
    total = sum(lengths)
    spare = round_rows(total) - total
    positions = torch.cat([*(torch.arange(length) for length in lengths), torch.zeros(spare, dtype=torch.long)])
    inputs = {
        "input_ids": torch.tensor([*chain.from_iterable(ids), *[0] * spare]),
        "position_ids": positions,
        "starts": torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32),
    }
    if seed is not None:
        inputs["seeds"] = row_seeds(seed, [*numbers, 0], positions, [*lengths, spare])
    return inputs, max(lengths)
