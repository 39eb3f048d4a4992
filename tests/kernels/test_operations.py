"""What every model computes: linear layers with adapters, attention, norms and dropout, by shape."""

from __future__ import annotations

import pytest
import torch
from against_float64 import Check, assert_close, every_type, outcome
from cases import GAPS, RAGGED, Columns, add_norm_case, attention_case, drop_case, lora_case

from lorafy.kernels import compiled, reference
from tolerances import FLOAT32_ROUNDING, SCORE_ROUNDING

pytestmark = pytest.mark.usefixtures("registers")
every_p = pytest.mark.parametrize("p", [0, 0.1, 0.5])

# ---- lora_linear

ADAPTERS: dict[str, Columns] = {
    "none": [],
    "whole": [(0, 67)],
    "beside": [(0, 32), (32, 16), (48, 19)],
    "gaps": GAPS,
}


@every_type
@every_p
@pytest.mark.parametrize("parts", ADAPTERS.values(), ids=ADAPTERS)
@pytest.mark.parametrize(
    "num_rows, num_in, r",
    [(1, 17, 4), (5, 8, 1), (23, 100, 17), (24, 65, 8), (25, 33, 40), (130, 48, 3)],
)
def test_a_linear_with_adapters(check: Check, p: float, parts: Columns, num_rows: int, num_in: int, r: int) -> None:
    check(lora_case(num_rows, num_in, 67, r, parts, p))


@every_type
@pytest.mark.parametrize("num_rows, num_in, num_out, r", [(1, 1, 1, 1), (7, 1, 3, 4), (1, 20, 1, 64), (49, 768, 5, 8)])
def test_a_narrow_linear(check: Check, num_rows: int, num_in: int, num_out: int, r: int) -> None:
    check(lora_case(num_rows, num_in, num_out, r, [(0, num_out)], 0.1))


@every_type
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("in_first", [True, False])
def test_the_weight_in_each_layout(check: Check, bias: bool, in_first: bool) -> None:
    check(lora_case(19, 40, 67, 8, GAPS, 0.1, bias=bias, in_first=in_first))


@every_type
def test_some_rows_of_an_adapter(check: Check) -> None:
    """The others' gradient is zero."""
    check(lora_case(19, 40, 67, 8, GAPS, 0.1, taller=5))


def test_several_frozen_parts_of_adapters_get_no_gradient() -> None:
    frozen = ["x", "A0", "B0", "A2"]
    case = lora_case(19, 40, 67, 8, GAPS, 0.1)
    exact, found = outcome(case, reference, torch.float64), outcome(case, compiled, torch.float32, frozen=frozen)
    assert all(found.pop(f"gradient of {name}") is None for name in frozen)
    for name, tensor in found.items():
        assert_close(tensor, exact[name], name)


def test_no_product_is_done_for_a_gradient_that_nobody_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frozen weight's product is the dear one: its shape tells it from the others."""
    products: list[tuple[int, ...]] = []
    real = torch.mm

    def counted(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        products.append(tuple(right.shape))
        return real(left, right)

    monkeypatch.setattr(torch, "mm", counted)
    case = lora_case(19, 40, 67, 8, ADAPTERS["whole"])
    outcome(case, compiled, torch.float32, frozen=["x"])
    assert products == [(40, 67)]
    outcome(case, compiled, torch.float32)
    assert products == [(40, 67), (40, 67), (67, 40)]


# ---- attention


@every_type
@every_p
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads, kv_heads, width", [(3, 3, 8), (2, 2, 20), (4, 2, 64), (6, 2, 20), (2, 1, 128)])
def test_attention(check: Check, p: float, causal: bool, heads: int, kv_heads: int, width: int) -> None:
    check(attention_case(RAGGED, heads, kv_heads, width, p, causal=causal))


@every_type
@pytest.mark.parametrize("length", [2, 15, 16, 17, 31, 33, 48, 64, 70, 97])
def test_attention_within_one_sequence(check: Check, length: int) -> None:
    check(attention_case([length], 2, 2, 20, 0.1))


@every_type
@every_p
@pytest.mark.parametrize("queries", [[1] * 8, [1, 1, 50, 16, 1, 48, 49, 2]], ids=["one", "some"])
@pytest.mark.parametrize("causal", [False, True])
def test_fewer_queries_than_keys(check: Check, p: float, queries: list[int], causal: bool) -> None:
    check(attention_case(RAGGED, 4, 2, 20, p, causal=causal, queries=queries))


@every_type
@pytest.mark.parametrize("queries", [None, [0, 2, 0, 0, 1]], ids=["all", "of some"])
def test_sequences_without_rows_or_without_queries(check: Check, queries: list[int] | None) -> None:
    check(attention_case([0, 5, 0, 20, 1], 4, 2, 20, 0.1, causal=True, queries=queries))


@every_type
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_queries_keys_and_values_in_one_tensor(check: Check, kv_heads: int) -> None:
    check(attention_case(RAGGED, 4, kv_heads, 20, 0.1, causal=True, apart=False, spare=5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("apart", [True, False])
def test_rows_behind_the_last_sequence_give_zeros(dtype: torch.dtype, apart: bool) -> None:
    case = attention_case(RAGGED, 4, 4, 20, 0.1, apart=apart, spare=11)

    def spoil(inputs: dict[str, torch.Tensor]) -> None:
        for x in inputs.values():
            x[-11:] = torch.nan

    found = outcome(case, compiled, dtype, change=spoil)
    for name, tensor in found.items():
        assert tensor is not None
        assert torch.equal(tensor[-11:], torch.zeros_like(tensor[-11:])), name
        assert tensor[:-11].isfinite().all(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_single_token_attends_to_itself(dtype: torch.dtype) -> None:
    case = attention_case([1, 1, 1], 2, 2, 20)
    exact, found = outcome(case, reference, torch.float64), outcome(case, compiled, dtype)
    for name, expected in exact.items():
        # A softmax of one value has no gradient: queries' and keys' are the rounding of 1.
        tensor = found[name]
        assert tensor is not None
        torch.testing.assert_close(tensor.double(), expected, atol=FLOAT32_ROUNDING, rtol=0)


def test_scores_beyond_the_range_of_exp() -> None:
    """Whole numbers: the scores themselves are exact in every type."""
    case = attention_case([40], 2, 2, 8, scale=1.0)

    def widen(inputs: dict[str, torch.Tensor]) -> None:
        inputs["q"].copy_((inputs["q"] * 8).round())
        inputs["kv"].copy_((inputs["kv"] * 8).round())

    exact = outcome(case, reference, torch.float64, change=widen)
    found = outcome(case, compiled, torch.float32, change=widen)
    inputs = case.inputs(torch.float64, ["q", "kv"])
    widen(inputs)
    q, k = inputs["q"].view(40, 2, 8), inputs["kv"][:, :16].view(40, 2, 8)
    largest = torch.einsum("ihd,jhd->hij", q, k).abs().max().item()
    assert largest > 200
    assert_close(found["output 0"], exact["output 0"], "output 0")
    for name in ("gradient of q", "gradient of kv"):
        assert_close(found[name], exact[name], name, tolerance=SCORE_ROUNDING * largest)


# ---- add_norm


@every_type
@every_p
@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("post", [False, True])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("num_rows, width", [(1, 37), (17, 16), (25, 100), (6, 768)])
def test_add_and_norm(check: Check, p: float, rms: bool, post: bool, both: bool, num_rows: int, width: int) -> None:
    check(add_norm_case(num_rows, width, p, rms=rms, post=post, both=both))


@every_type
@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("post", [False, True])
@pytest.mark.parametrize("both", [False, True])
def test_a_norm_with_nothing_to_add(check: Check, rms: bool, post: bool, both: bool) -> None:
    check(add_norm_case(25, 37, rms=rms, post=post, both=both, with_y=False))


@every_type
def test_a_layer_norm_without_bias(check: Check) -> None:
    check(add_norm_case(25, 37, 0.1, bias=False))


# ---- drop


@every_type
@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("num_rows, width", [(1, 70), (7, 16), (53, 33)])
def test_drop(check: Check, p: float, num_rows: int, width: int) -> None:
    check(drop_case(num_rows, width, p))
