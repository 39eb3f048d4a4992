"""The operations for a GPU against their definition: as plain torch on a CPU, and compiled as Triton's are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from against_float64 import Case, assert_close, error_of, outcome
from cases import (
    GAPS,
    PASSES,
    RAGGED,
    add_norm_case,
    attention_case,
    cross_entropy_case,
    lora_case,
    seeds_of,
)
from torch.nn import functional

from lorafy.kernels import gpu, reference
from lorafy.kernels.nouns import Dropout, Linear, Sequences
from lorafy.types import IGNORE_INDEX
from tolerances import BFLOAT16_STORED, BFLOAT16_TIMES_TORCH, FLOAT32_ROUNDING, FLOAT64_ROUNDING

EVERY = {
    "lora_linear": lora_case(29, 40, 67, 8, GAPS),
    "lora_linear, dropped": lora_case(29, 40, 67, 8, GAPS, 0.1),
    "lora_linear, in first": lora_case(29, 40, 67, 8, GAPS, 0.1, in_first=True, bias=False),
    "lora_linear, some rows": lora_case(19, 40, 67, 8, GAPS, 0.1, taller=5),
    "no adapter": lora_case(29, 40, 67, 8, []),
    "attention": attention_case(RAGGED, 4, 4, 20, apart=False),
    "attention, grouped": attention_case(RAGGED, 4, 2, 20, causal=True, apart=False),
    "attention, first tokens": attention_case(RAGGED, 4, 4, 20, queries=[1] * len(RAGGED)),
    "attention, last queries": attention_case(RAGGED, 4, 2, 20, causal=True, queries=[1, 0, 69, 3, 47, 0, 10, 3]),
    "add_norm, first": add_norm_case(29, 37, with_y=False),
    **PASSES,
    "no label at all": cross_entropy_case(3, 20, 300, unlabelled=3),
}
every_operation = pytest.mark.parametrize("case", EVERY.values(), ids=EVERY)
pytestmark = pytest.mark.usefixtures("varlen_on_a_cpu")


@every_operation
def test_it_is_the_definition(case: Case) -> None:
    exact, found = outcome(case, reference, torch.float64), outcome(case, gpu, torch.float64)
    for name, expected in exact.items():
        assert expected is not None
        if expected.any():
            assert_close(found[name], expected, name, FLOAT64_ROUNDING)
        else:
            tensor = found[name]
            assert tensor is not None and not tensor.any(), name


@every_operation
def test_in_bfloat16_it_is_as_exact_as_torch(case: Case) -> None:
    exact = outcome(case, reference, torch.float64)
    plain, found = (outcome(case, ops, torch.bfloat16) for ops in (reference, gpu))
    for name, expected in exact.items():
        if expected is not None and expected.any():
            allowed = max(BFLOAT16_TIMES_TORCH * error_of(plain[name], expected), BFLOAT16_STORED)
            assert error_of(found[name], expected) <= allowed, name


SEVERAL = [name for name, case in EVERY.items() if len(case.rows | case.singles) > 1]


@pytest.mark.parametrize("name, frozen", [(n, x) for n in SEVERAL for x in EVERY[n].rows | EVERY[n].singles])
def test_a_frozen_input_gets_no_gradient_and_the_others_theirs(name: str, frozen: str) -> None:
    exact = outcome(EVERY[name], reference, torch.float64)
    found = outcome(EVERY[name], gpu, torch.float64, frozen=[frozen])
    assert found.pop(f"gradient of {frozen}") is None
    for what, tensor in found.items():
        assert_close(tensor, exact[what], what, FLOAT64_ROUNDING)


def test_the_logits_of_many_rows_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """70 rows, 16 at a time."""
    case = cross_entropy_case(70, 20, 300, bias=True, unlabelled=3, trained=True)
    exact = outcome(case, reference, torch.float64)
    monkeypatch.setattr(gpu, "LOGITS_BYTES", 1)
    for name, tensor in outcome(case, gpu, torch.float64).items():
        assert_close(tensor, exact[name], name, FLOAT64_ROUNDING)


def test_what_is_right_is_counted() -> None:
    x = torch.eye(4)
    labels = torch.tensor([0, 1, 0, IGNORE_INDEX])
    assert gpu.cross_entropy(x, Linear(torch.eye(4), None, []), labels)[1] == 2


# ---- dropped probabilities: torch's own masks, not those of the seeds


def dropped_attention(p: float, queries: int, keys: int, values: torch.Tensor) -> torch.Tensor:
    """Scores of zero, so each of a sequence's keys has the same probability."""
    starts = torch.tensor([0, keys, 2 * keys], dtype=torch.int32)
    query_starts = torch.tensor([0, queries, 2 * queries], dtype=torch.int32)
    sequences = Sequences(starts, query_starts, 2, 2, 8, 1.0, False, keys)
    kv = torch.cat([torch.zeros(2 * keys, 16), values], 1)
    return gpu.attention(torch.zeros(2 * queries, 16), kv, sequences, Dropout(p, 0), seeds_of(2 * queries))


@pytest.mark.parametrize("queries", [1, 50])
def test_so_many_probabilities_are_dropped(queries: int) -> None:
    """Each output is a mean over 50 keys of 0 or 1 / (1 - p): its mean is 1, its variance p / (1 - p) / 50."""
    torch.manual_seed(0)
    p, keys = 0.3, 50
    draws = torch.stack([dropped_attention(p, queries, keys, torch.ones(2 * keys, 16)) for _ in range(200)])
    one_a_head = draws[..., ::8]
    num = one_a_head.numel()
    assert abs(one_a_head.mean() - 1) < 4 * (p / (1 - p) / keys / num) ** 0.5
    assert one_a_head.var().item() == pytest.approx(p / (1 - p) / keys, rel=4 * (2 / num) ** 0.5)


def test_the_same_state_drops_the_same() -> None:
    values = torch.randn(100, 16)
    torch.manual_seed(5)
    first = dropped_attention(0.3, 50, 50, values)
    assert not torch.equal(dropped_attention(0.3, 50, 50, values), first)
    torch.manual_seed(5)
    assert torch.equal(dropped_attention(0.3, 50, 50, values), first)


# ---- liger-kernel, where it is installed


@pytest.fixture
def liger(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """In its place: what it promises, in plain torch. Yields how many rows each call had."""
    calls: list[int] = []

    def liger_cross_entropy(
        logits: torch.Tensor, labels: torch.Tensor, *, ignore_index: int, reduction: str, return_predicted_tokens: bool
    ) -> Any:
        calls.append(len(labels))
        assert return_predicted_tokens
        loss = functional.cross_entropy(logits.float(), labels, ignore_index=ignore_index, reduction=reduction)
        return SimpleNamespace(loss=loss, predicted_tokens=torch.where(labels == ignore_index, -1, logits.argmax(1)))

    module = ModuleType("liger_kernel.transformers.functional")
    module.liger_cross_entropy = liger_cross_entropy  # type: ignore[attr-defined]
    for name in ("liger_kernel", "liger_kernel.transformers"):
        package = ModuleType(name)
        package.__spec__ = SimpleNamespace(name=name)  # type: ignore[assignment]
        monkeypatch.setitem(sys.modules, name, package)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    gpu._liger.cache_clear()
    yield calls
    gpu._liger.cache_clear()


def test_liger_computes_the_loss_where_it_is_installed(monkeypatch: pytest.MonkeyPatch, liger: list[int]) -> None:
    case = cross_entropy_case(70, 20, 300, bias=True, unlabelled=3)
    exact = outcome(case, reference, torch.float64)
    by_liger = gpu._liger()
    assert by_liger is not None
    monkeypatch.setattr(gpu, "_softmax", by_liger)
    for name, tensor in outcome(case, gpu, torch.float32).items():
        assert_close(tensor, exact[name], name)
    assert liger == [70]


def test_without_liger_it_is_ours() -> None:
    gpu._liger.cache_clear()
    assert gpu._liger() is None


# ---- fused passes: the same code through torch.compile, here for a CPU

FUSED = ["add_norm", "add_norm, post", "add_norm, RMS", "gated silu", "drop", "normed rotary"]


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    for name in ("_add_norm", "_rotary", "activation", "_dropped", "_added", "_softmax"):
        function = getattr(gpu, name).__wrapped__
        monkeypatch.setattr(gpu, name, torch.compile(function, dynamic=True))
    return torch.compile


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FUSED, "lora_linear, dropped", "cross_entropy"])
def test_fused_it_is_still_the_definition(fused: Any, name: str) -> None:
    exact, found = outcome(EVERY[name], reference, torch.float64), outcome(EVERY[name], gpu, torch.float32)
    for what, expected in exact.items():
        assert_close(found[what], expected, what, FLOAT32_ROUNDING)


@pytest.mark.slow
def test_it_is_compiled_once_for_all_layers_and_lengths(fused: Any) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    x = torch.randn(200, 40)
    for rows, site in [(100, 1_024), (130, 2_048), (37, 7 * 1_024)]:
        dropped = gpu.drop(x[:rows], Dropout(0.1, site), seeds_of(rows))
        assert torch.equal(dropped, reference.drop(x[:rows], Dropout(0.1, site), seeds_of(rows)))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
