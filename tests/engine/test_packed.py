"""A step's examples one behind the other: every token once, in order, its dropout seed its own."""

from __future__ import annotations

import random
from itertools import accumulate, chain, pairwise

import pytest
import torch

from lorafy.engine.packed import MAX_TOKENS, cut, pack_sequences, pack_texts, rounded
from lorafy.types import IGNORE_INDEX, Features


def drawn(count: int, shortest: int, longest: int, seed: int = 0) -> list[int]:
    draw = random.Random(seed)
    return [draw.randint(shortest, longest) for _ in range(count)]


LENGTHS: dict[str, list[int]] = {
    "one": [7],
    "one too long": [MAX_TOKENS + 1],
    "some too long": [5, 3_000, 7, 2_049, 2_048, 1],
    "equal": [64] * 100,
    "short": drawn(400, 1, 60),
    "ragged": drawn(90, 3, 512),
    "growing": list(range(1, 300)),
    "falling": list(range(300, 0, -1)),
    "just fits": [1_024] * 8,
    "just does not": [1_025] * 8,
}
every_lengths = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)


def texts(lengths: list[int], *, pairs: bool = False) -> list[Features]:
    draw = random.Random(3)
    return [
        Features(
            [draw.randint(1, 99) for _ in range(length)],
            [index % 3],
            row=100 + index,
            token_type_ids=[0] * (length - length // 2) + [1] * (length // 2) if pairs else None,
        )
        for index, length in enumerate(lengths)
    ]


@every_lengths
@pytest.mark.parametrize("max_examples", [None, 1, 3, 50])
def test_every_position_is_there_once_and_in_order(lengths: list[int], max_examples: int | None) -> None:
    runs = cut(lengths, max_examples)
    assert list(chain.from_iterable(runs)) == list(range(len(lengths)))
    assert all(runs)


@every_lengths
@pytest.mark.parametrize("max_examples", [None, 1, 3, 50])
@pytest.mark.parametrize("most", [64, 500, MAX_TOKENS])
def test_no_run_is_above_its_limits(lengths: list[int], max_examples: int | None, most: int) -> None:
    for run in cut(lengths, max_examples, most):
        assert sum(lengths[i] for i in run) <= most or len(run) == 1
        assert max_examples is None or len(run) <= max_examples


@pytest.mark.parametrize("name", ["equal", "short", "growing"])
def test_runs_are_of_near_equal_size(name: str) -> None:
    sizes = [sum(LENGTHS[name][i] for i in run) for run in cut(LENGTHS[name])]
    assert min(sizes) >= max(sizes) / 2, sizes


@pytest.mark.parametrize("count, shortest, longest", [(32, 5, 60), (256, 5, 60), (32, 100, 512), (64, 10, 512)])
def test_no_run_more_than_needed(count: int, shortest: int, longest: int) -> None:
    """A last run of a few tokens costs a whole forward and backward. Filling each run to the brim takes the fewest."""
    for seed in range(20):
        lengths = drawn(count, shortest, longest, seed)
        fewest, tokens = 1, 0
        for length in lengths:
            fewest, tokens = (fewest, tokens + length) if tokens + length <= MAX_TOKENS else (fewest + 1, length)
        sizes = [sum(lengths[i] for i in run) for run in cut(lengths)]
        assert len(sizes) == fewest, sizes


def test_what_fits_is_one_run() -> None:
    assert cut([500, 500, 500, 548]) == [[0, 1, 2, 3]]
    assert cut([500, 500, 500, 549]) == [[0, 1, 2], [3]]


@pytest.mark.parametrize("num_tokens", [1, 15, 16, 17, 511, 512, 513, 576, 577, 2_000, 2_048])
def test_rounded_adds_little(num_tokens: int) -> None:
    assert num_tokens <= rounded(num_tokens) < num_tokens + (16 if num_tokens <= 512 else 64)
    assert rounded(num_tokens) % 16 == 0


def test_a_batch_has_few_possible_sizes() -> None:
    assert len({rounded(count) for count in range(1, MAX_TOKENS + 1)}) <= 32 + 24


@pytest.mark.parametrize("lengths", [[1], [16], [3, 9, 2, 14, 5], [40, 1, 77, 500]], ids=str)
def test_tokens_lie_one_behind_the_other(lengths: list[int]) -> None:
    features = texts(lengths)
    batch = pack_texts(features, range(len(features)), None)
    total, num_rows = sum(lengths), rounded(sum(lengths))
    assert batch.inputs["starts"].tolist() == [0, *accumulate(lengths)]
    assert batch.inputs["starts"].dtype == torch.int32
    assert set(batch.inputs) == {"input_ids", "position_ids", "starts"}
    for name in ("input_ids", "position_ids"):
        assert batch.inputs[name].shape == (num_rows,)
        assert batch.inputs[name][total:].tolist() == [0] * (num_rows - total), "spare rows can be embedded"
    for feature, start in zip(features, batch.inputs["starts"].tolist(), strict=False):
        place = slice(start, start + len(feature))
        assert batch.inputs["input_ids"][place].tolist() == feature.input_ids
        assert batch.inputs["position_ids"][place].tolist() == list(range(len(feature)))
    assert batch.labels.tolist() == [feature.labels[0] for feature in features]
    assert batch.rows == [feature.row for feature in features]


def test_a_text_without_a_label_keeps_its_place() -> None:
    features = texts([3, 4, 5])
    features[1] = Features(features[1].input_ids, [IGNORE_INDEX], 7)
    assert pack_texts(features, range(3), None).labels.tolist() == [0, IGNORE_INDEX, 2]


def test_token_types_beside_texts_that_have_none() -> None:
    single, pair = texts([3])[0], texts([5], pairs=True)[0]
    batch = pack_texts([single, pair, single], range(3), None)
    assert batch.inputs["token_type_ids"].tolist() == [0] * 3 + [0, 0, 0, 1, 1] + [0] * 3 + [0] * 5
    assert "token_type_ids" not in pack_texts([single, single], range(2), None).inputs


# ---- sequences of a language model


def sequences(labelled: list[list[bool]]) -> list[Features]:
    """For each token whether it is a target."""
    draw = random.Random(4)
    ids = [[draw.randint(1, 99) for _ in targets] for targets in labelled]
    return [
        Features(some, [i if target else IGNORE_INDEX for i, target in zip(some, targets, strict=True)], row)
        for row, (some, targets) in enumerate(zip(ids, labelled, strict=True))
    ]


def test_each_target_is_predicted_from_the_tokens_before_it() -> None:
    """A question and an answer, two answers, a plain text, a sequence without a target, one of a single token."""
    f, t = False, True
    features = sequences([[f, f, f, t, t], [f, t, f, f, t, f], [f, t, t], [f, f], [f], [f, f, t]])
    batch = pack_sequences(features, range(6), None)
    assert batch.rows == list(range(6))
    ids, places, starts, first_queries = (
        batch.inputs[name].tolist() for name in ("input_ids", "position_ids", "starts", "query_starts")
    )
    query_rows, target_rows = batch.inputs["query_rows"].tolist(), batch.inputs["target_rows"].tolist()
    assert starts == [0, 4, 9, 11, 12, 12, 14], "the last token of each predicts nothing"
    expected = []  # (the tokens before a target, the target)
    for feature in features:
        expected += [
            (feature.input_ids[:place], label) for place, label in enumerate(feature.labels) if label != IGNORE_INDEX
        ]
    found = []
    for target, label in zip(target_rows, batch.labels.tolist(), strict=True):
        row = query_rows[target]
        if label != IGNORE_INDEX:
            found.append((ids[row - places[row] : row + 1], label))
    assert found == expected
    for (start, end), (first, last) in zip(pairwise(starts), pairwise(first_queries), strict=True):
        assert query_rows[first:last] == list(range(end - (last - first), end)), "the last of the sequence's rows"
        assert places[start:end] == list(range(end - start))
    assert first_queries == [0, 2, 7, 9, 9, 9, 10]


def test_spare_rows_of_a_batch_of_sequences() -> None:
    batch = pack_sequences(sequences([[False, True, True]] * 9), range(9), 1)
    for name, count in (("input_ids", 32), ("seeds", 32), ("query_rows", 32), ("target_rows", 32)):
        assert batch.inputs[name].shape == (count,), name
    assert batch.labels[18:].tolist() == [IGNORE_INDEX] * 14


# ---- dropout seeds


def seeds_of(lengths: list[int], numbers: list[int], seed: int) -> list[list[int]]:
    """For each example of a batch."""
    batch = pack_texts(texts(lengths), numbers, seed)
    seeds, starts = batch.inputs["seeds"], batch.inputs["starts"].tolist()
    assert seeds.dtype == torch.int32 and seeds.shape == batch.inputs["input_ids"].shape
    return [seeds[first:last].tolist() for first, last in pairwise(starts)]


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**63 - 1])
def test_an_example_s_seeds_do_not_depend_on_its_batch(seed: int) -> None:
    lengths, numbers = [3, 9, 2, 14, 5], [70, 0, 12, 100_000, 3]
    together = seeds_of(lengths, numbers, seed)
    order = [3, 0, 4, 2, 1]
    moved = seeds_of([lengths[i] for i in order], [numbers[i] for i in order], seed)
    assert moved == [together[i] for i in order]
    for length, number, seeds in zip(lengths, numbers, together, strict=True):
        assert seeds_of([length], [number], seed) == [seeds]


def test_every_token_of_a_step_has_a_seed_of_its_own() -> None:
    lengths = [64] * 32
    seeds = list(chain.from_iterable(seeds_of(lengths, list(range(32)), 5)))
    assert len(set(seeds)) == len(seeds)


def test_another_step_and_another_example_have_other_seeds() -> None:
    (one,) = seeds_of([20], [4], 5)
    (other_step,) = seeds_of([20], [4], 6)
    (other_example,) = seeds_of([20], [40], 5)
    assert not set(one) & set(other_step) and not set(one) & set(other_example)


def test_a_longer_text_starts_with_the_same_seeds() -> None:
    (short,), (long,) = seeds_of([5], [4], 9), seeds_of([20], [4], 9)
    assert long[:5] == short


def test_without_a_seed_there_are_no_seeds() -> None:
    assert "seeds" not in pack_texts(texts([3, 4]), [0, 1], None).inputs
