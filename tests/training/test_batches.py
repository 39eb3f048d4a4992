"""The order of examples, and how a step is cut."""

import itertools
import random

import pytest

from lorafy.data.batches import MICRO_BATCH_COST_TOKENS, StepPlan, dropout_seed, micro_batches


@pytest.mark.parametrize(("num_examples", "batch_size"), [(10, 3), (12, 4), (1, 5), (7, 7), (5, 1)])
def test_an_epoch_visits_every_example_once(num_examples: int, batch_size: int):
    plan = StepPlan(num_examples, batch_size, seed=3)
    for epoch in range(3):
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        seen = [index for step in steps for index in plan.examples(step)]
        assert sorted(seen) == list(range(num_examples))
        assert all(len(plan.examples(step)) <= batch_size for step in steps)


def test_the_order_is_a_function_of_seed_and_epoch():
    plan = StepPlan(50, 8, seed=1)
    forwards = [plan.examples(step) for step in range(30)]
    fresh = [StepPlan(50, 8, seed=1).examples(step) for step in reversed(range(30))]
    assert forwards == fresh[::-1]
    assert forwards[:7] != forwards[7:14], "the second epoch has an order of its own"
    assert forwards[:7] != [StepPlan(50, 8, seed=2).examples(step) for step in range(7)]


@pytest.mark.parametrize(
    ("num_examples", "num_epochs", "max_steps", "expected"),
    [
        (100, 2, None, 20),  # 10 steps an epoch
        (100, 0.5, None, 5),
        (100, 0.01, None, 1),
        (100, None, 7, 7),
        (100, None, None, 100),  # 150 steps would take 15 epochs; 10 at most
        (400, None, None, 160),  # 40 steps an epoch: 4 epochs are the first with 150 steps
        (2_000, None, None, 600),  # 3 epochs suffice
    ],
)
def test_number_of_steps(num_examples: int, num_epochs: float | None, max_steps: int | None, expected: int):
    assert StepPlan(num_examples, 10, seed=0).num_steps(num_epochs, max_steps) == expected


def padded_cost(cuts: list[list[int]], lengths: dict[int, int]) -> int:
    return sum(len(cut) * max(lengths[index] for index in cut) + MICRO_BATCH_COST_TOKENS for cut in cuts)


def partitions(items: list[int]):
    """Every way to put items into unordered non-empty sets."""
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for size in range(len(rest) + 1):
        for others in itertools.combinations(rest, size):
            left = [item for item in rest if item not in others]
            for parts in partitions(left):
                yield [[first, *others], *parts]


@pytest.mark.parametrize("seed", range(12))
def test_no_partition_whatever_is_cheaper(seed: int):
    chance = random.Random(seed)
    lengths = {index: chance.choice([1, 3, 40, 90, 200, 511]) for index in range(chance.randint(1, 7))}
    max_tokens, max_examples = chance.choice([300, 900, 10_000]), chance.choice([None, 2, 3])

    def allowed(cut: list[int]) -> bool:
        tokens = len(cut) * max(lengths[index] for index in cut)
        return len(cut) == 1 or (tokens <= max_tokens and (max_examples is None or len(cut) <= max_examples))

    cuts = micro_batches(list(lengths), lengths, max_tokens=max_tokens, max_examples=max_examples)
    possible = (parts for parts in partitions(list(lengths)) if all(allowed(part) for part in parts))
    assert padded_cost(cuts, lengths) == min(padded_cost(parts, lengths) for parts in possible)


@pytest.mark.parametrize("seed", range(5))
def test_limits_hold_and_nothing_is_lost(seed: int):
    chance = random.Random(seed)
    lengths = {index: chance.randint(1, 600) for index in range(64)}
    cuts = micro_batches(list(lengths), lengths, max_tokens=500, max_examples=4)
    assert sorted(index for cut in cuts for index in cut) == list(range(64))
    for cut in cuts:
        assert len(cut) <= 4
        assert len(cut) == 1 or len(cut) * max(lengths[index] for index in cut) <= 500


def test_the_cut_does_not_depend_on_the_order_given():
    lengths = {index: index % 5 + 1 for index in range(20)}
    assert micro_batches(range(20), lengths, max_tokens=16) == micro_batches(range(19, -1, -1), lengths, max_tokens=16)


def test_the_dropout_seed_is_written_down() -> None:
    """These values may not change: they decide the bits of every run with dropout."""
    assert dropout_seed(42, 1) == 1431892761337571662
    seeds = {dropout_seed(seed, number) for seed in range(50) for number in range(50)}
    assert len(seeds) == 2500 and all(0 <= seed < 2**63 for seed in seeds)
