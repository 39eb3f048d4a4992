"""What holds for every compiled operation: whatever the layout, whatever is frozen, whatever the number of threads."""

from __future__ import annotations

import pytest
import torch
from against_float64 import LAYOUTS, Case, Check, Layout, assert_close, every_type, outcome
from cases import (
    GAPS,
    PASSES,
    RAGGED,
    attention_case,
    lora_case,
)

from lorafy.kernels import compiled, reference

EVERY = {
    "lora_linear": lora_case(29, 40, 67, 8, GAPS, 0.1),
    "attention": attention_case(RAGGED, 4, 2, 20, 0.1, causal=True),
    "attention in one": attention_case(RAGGED, 4, 4, 20, 0.1, apart=False),
    **PASSES,
}
every_operation = pytest.mark.parametrize("case", EVERY.values(), ids=EVERY)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])


@every_type
@every_operation
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_that_are_not_contiguous(check: Check, case: Case, layout: Layout) -> None:
    check(case, layout=layout)


SEVERAL = [name for name, case in EVERY.items() if len(case.rows | case.singles) > 1]


@pytest.mark.parametrize(
    "name, frozen", [(name, x) for name in SEVERAL for x in EVERY[name].rows | EVERY[name].singles]
)
def test_a_frozen_input_gets_no_gradient_and_the_others_theirs(name: str, frozen: str) -> None:
    exact = outcome(EVERY[name], reference, torch.float64)
    found = outcome(EVERY[name], compiled, torch.float32, frozen=[frozen])
    assert found.pop(f"gradient of {frozen}") is None
    for what, tensor in found.items():
        assert_close(tensor, exact[what], what)


@every_operation
@every_dtype
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_visible(case: Case, dtype: torch.dtype, bad: float) -> None:
    """Wherever plain torch gives no number, there is none."""
    for name in [*case.rows, *case.singles]:

        def spoil(inputs: dict[str, torch.Tensor], name: str = name) -> None:
            inputs[name][:3][-1, [0, -1]] = bad  # a row with a label

        exact = outcome(case, reference, torch.float64, change=spoil)
        found = outcome(case, compiled, dtype, change=spoil)
        for what, expected in exact.items():
            if what.startswith("gradient") and bad == bad:
                continue  # behind an infinite value the outputs say it
            tensor = found[what]
            assert expected is not None and tensor is not None
            hidden = ~expected.isfinite() & tensor.isfinite()
            assert not hidden.any(), f"{what} after {name} is {bad}: {int(hidden.sum())} are numbers"


@every_operation
@every_dtype
def test_a_gradient_that_is_not_finite_stays_visible(case: Case, dtype: torch.dtype) -> None:
    def spoil(x: torch.Tensor) -> torch.Tensor:
        x[-1, 0] = torch.nan
        return x

    exact = outcome(case, reference, torch.float64, layout=spoil)
    found = outcome(case, compiled, dtype, layout=spoil)
    for what, expected in exact.items():
        tensor = found[what]
        assert expected is not None and tensor is not None
        assert not (expected.isnan() & tensor.isfinite()).any(), what


@every_operation
@every_dtype
def test_the_same_bits_with_one_and_two_threads(case: Case, dtype: torch.dtype) -> None:
    one = outcome(case, compiled, dtype)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = outcome(case, compiled, dtype)
    finally:
        torch.set_num_threads(before)
    for name, tensor in one.items():
        again = two[name]
        assert tensor is not None and again is not None and torch.equal(tensor, again), name
