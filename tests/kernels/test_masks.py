"""Dropout masks: a function of row seed, site and column, and of nothing else; the share that is dropped is p."""

from __future__ import annotations

import pytest
import torch
from cases import seeds_of

from lorafy.kernels import compiled, reference
from lorafy.kernels.nouns import SITES, Dropout, Linear, LoraPart, Norm, Sequences

P = Dropout(0.3, 4 * SITES)


def mask(seeds: torch.Tensor, dropout: Dropout, width: int = 100) -> torch.Tensor:
    """True where a value is kept."""
    return compiled.drop(torch.ones(len(seeds), width), dropout, seeds) != 0


def attention_masks(seeds: torch.Tensor, num_heads: int, dropout: Dropout) -> torch.Tensor:
    """(heads, queries, keys): with scores of zero and values of one-hot columns, the output is the mask."""
    n = len(seeds)
    starts = torch.tensor([0, n], dtype=torch.int32)
    sequences = Sequences(starts, starts, num_heads, num_heads, n, 1.0, False, n)
    values = torch.eye(n).repeat(1, num_heads)
    kv = torch.cat([torch.zeros(n, num_heads * n), values], 1)
    out = compiled.attention(torch.zeros(n, num_heads * n), kv, sequences, dropout, seeds)
    return (out != 0).view(n, num_heads, n).transpose(0, 1)


@pytest.mark.parametrize("p", [0.01, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("site", [1, 2, 40])
def test_the_share_of_dropped_values_is_p(p: float, site: int) -> None:
    """Within four standard deviations, with the seeds of a real step."""
    lengths = [3, 17, 64, 9, 128] * 4
    positions = torch.cat([torch.arange(length) for length in lengths])
    seeds = reference.row_seeds(2**62 + 11, range(1000, 1020), positions, lengths)
    dropped = ~mask(seeds, Dropout(p, site * SITES), 333)
    deviation = (p * (1 - p) / dropped.numel()) ** 0.5
    assert abs(dropped.double().mean().item() - p) < 4 * deviation


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_rows_and_columns_are_dropped_alike(p: float) -> None:
    """No row and no column stands out: the largest of some hundred shares is within five standard deviations."""
    dropped = (~mask(seeds_of(500), Dropout(p, SITES), 400)).double()
    for axis, count in ((0, 500), (1, 400)):
        deviation = (p * (1 - p) / count) ** 0.5
        assert (dropped.mean(axis) - p).abs().max().item() < 5 * deviation


def test_what_is_kept_grows_by_what_is_dropped() -> None:
    kept = compiled.drop(torch.ones(50, 40), P, seeds_of(50))
    assert set(kept.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}


def agreement(left: torch.Tensor, right: torch.Tensor) -> float:
    """Independent masks at p = 0.5 agree on half of the values; in deviations from that."""
    return ((left == right).double().mean().item() - 0.5) * 2 * left.numel() ** 0.5


def test_sites_give_different_masks() -> None:
    seeds = seeds_of(100)
    masks = [mask(seeds, Dropout(0.5, site * SITES)) for site in range(1, 8)]
    for i, left in enumerate(masks):
        for right in masks[:i]:
            assert abs(agreement(left, right)) < 4


def test_heads_give_different_masks() -> None:
    masks = attention_masks(seeds_of(64), 6, Dropout(0.5, 4 * SITES))
    for i, left in enumerate(masks):
        for right in masks[:i]:
            assert abs(agreement(left, right)) < 4


def test_a_head_of_one_site_is_not_a_head_of_the_next() -> None:
    seeds = seeds_of(64)
    here, there = (attention_masks(seeds, 4, Dropout(0.5, site * SITES)) for site in (4, 5))
    assert all(abs(agreement(left, right)) < 4 for left in here for right in there)


def test_the_mask_of_a_head_is_the_reference_s() -> None:
    seeds = seeds_of(37)
    masks = attention_masks(seeds, 3, P)
    for head in range(3):
        assert torch.equal(masks[head], reference.factors(P, seeds, 37, torch.float32, head) != 0)


def test_row_seeds_give_different_masks() -> None:
    seeds = reference.row_seeds(5, [0, 1], torch.tensor([0, 1, 0, 1]), [2, 2])
    masks = mask(seeds, Dropout(0.5, SITES), 4000)
    assert all(abs(agreement(masks[i], masks[j])) < 4 for i in range(4) for j in range(i))


def test_the_mask_of_a_seed_is_the_same_wherever_its_row_stands() -> None:
    seeds = seeds_of(60)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    whole = mask(seeds, P)
    assert torch.equal(mask(seeds[order], P), whole[order])
    assert torch.equal(mask(seeds[7:8], P), whole[7:8])
    assert torch.equal(mask(seeds.repeat(2), P), whole.repeat(2, 1))


def test_the_mask_is_the_same_in_every_operation_and_type() -> None:
    """drop, the adapter's input, what is added before a norm: one site, one seed, one mask."""
    seeds, width = seeds_of(30), 40
    expected = mask(seeds, P, width)
    assert torch.equal(compiled.drop(torch.ones(30, width).bfloat16(), P, seeds) != 0, expected)
    identity = LoraPart(torch.eye(width), torch.eye(width), 1.0, P)
    linear = Linear(torch.zeros(width, width), None, [identity])
    assert torch.equal(compiled.lora_linear(torch.ones(30, width), linear, seeds) != 0, expected)
    norm = Norm(torch.ones(width), None, 1e-5, rms=True)
    total, _ = compiled.add_norm(torch.zeros(30, width), torch.ones(30, width), norm, P, seeds, torch.float32)
    assert torch.equal(total != 0, expected)


@pytest.mark.parametrize("seeds", [None, seeds_of(30)], ids=["without seeds", "at p = 0"])
def test_nothing_is_dropped(seeds: torch.Tensor | None) -> None:
    dropout = P if seeds is None else Dropout(0.0, P.site)
    x = torch.randn(30, 40)
    assert torch.equal(compiled.drop(x, dropout, seeds), x)
    norm = Norm(torch.ones(40), None, 1e-5, rms=True)
    total, _ = compiled.add_norm(x, x, norm, dropout, seeds, torch.float32)
    assert torch.equal(total, 2 * x)
    starts = torch.tensor([0, 30], dtype=torch.int32)
    sequences = Sequences(starts, starts, 2, 2, 20, 1.0, False, 20)
    ones = compiled.attention(x, torch.ones(30, 80), sequences, dropout, seeds)
    torch.testing.assert_close(ones, torch.ones(30, 40))


def test_the_library_counts_its_threads_by_torch_s() -> None:
    """Two OpenMP libraries in one process would each take all cores."""
    library, before = compiled.load_library(), torch.get_num_threads()
    try:
        for count in (2, 1):
            torch.set_num_threads(count)
            assert library.omp_get_max_threads() == count
    finally:
        torch.set_num_threads(before)
