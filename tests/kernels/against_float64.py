"""An operation on the same values in different types and by different code: outputs and all gradients, whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from lorafy.kernels import compiled, reference
from tolerances import BFLOAT16_STORED, BFLOAT16_TIMES_TORCH, FLOAT32_ROUNDING

Tensors = dict[str, torch.Tensor]
Layout = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Case:
    """An operation with its inputs, in float64, all of them values that bfloat16 holds exactly.

    call: (operations, inputs, dtype of the rows) -> outputs.
    rows: inputs in the dtype of the rows. singles: inputs that are float32 beside rows of bfloat16.
    """

    call: Callable[[Any, Tensors, torch.dtype], Sequence[torch.Tensor]]
    rows: Tensors
    singles: Tensors

    def inputs(self, dtype: torch.dtype, frozen: Sequence[str] = ()) -> Tensors:
        wide = torch.float32 if dtype == torch.bfloat16 else dtype
        values = {name: x.to(dtype) for name, x in self.rows.items()}
        values |= {name: x.to(wide) for name, x in self.singles.items()}
        return {name: x.clone().requires_grad_(name not in frozen) for name, x in values.items()}


def draw(*shape: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    """Normal numbers that bfloat16 holds exactly, as float64."""
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(shape, generator=generator)).bfloat16().double()


def outcome(
    case: Case,
    ops: Any,
    dtype: torch.dtype,
    layout: Layout = torch.Tensor.contiguous,
    frozen: Sequence[str] = (),
    change: Callable[[Tensors], None] = lambda _: None,
) -> dict[str, torch.Tensor | None]:
    """Outputs by their number, gradients by the name of their input (None where there is none).

    layout: of the incoming gradients. change: something done to the inputs before.
    """
    inputs = case.inputs(dtype, frozen)
    with torch.no_grad():
        change(inputs)
    outputs = case.call(ops, inputs, dtype)
    incoming = [layout(draw(*y.shape, seed=100 + index).to(y.dtype)) for index, y in enumerate(outputs)]
    torch.autograd.backward(outputs, incoming)
    found: dict[str, torch.Tensor | None] = {f"output {index}": y.detach() for index, y in enumerate(outputs)}
    return found | {f"gradient of {name}": x.grad for name, x in inputs.items()}


def assert_float32_is_exact(case: Case, **settings: Any) -> None:
    exact, found = outcome(case, reference, torch.float64), outcome(case, compiled, torch.float32, **settings)
    for name, expected in exact.items():
        assert_close(found[name], expected, name)


def assert_close(
    found: torch.Tensor | None, exact: torch.Tensor | None, name: str, tolerance: float = FLOAT32_ROUNDING
) -> None:
    """The largest difference, in units of the largest value."""
    assert found is not None and exact is not None, name
    assert found.shape == exact.shape, name
    apart = ((found.double() - exact).abs().max() / exact.abs().max()).item()
    assert apart <= tolerance, f"{name}: {apart:.1e} apart"


def assert_bfloat16_is_as_exact_as_torch(case: Case, **settings: Any) -> None:
    exact = outcome(case, reference, torch.float64)
    plain, found = (outcome(case, ops, torch.bfloat16, **settings) for ops in (reference, compiled))
    for name, expected in exact.items():
        ours, theirs = error_of(found[name], expected), error_of(plain[name], expected)
        allowed = max(BFLOAT16_TIMES_TORCH * theirs, BFLOAT16_STORED)
        assert ours <= allowed, f"{name}: error {ours:.1e}, plain torch's {theirs:.1e}"


def error_of(found: torch.Tensor | None, exact: torch.Tensor | None) -> float:
    """Length of the difference, in units of the exact tensor's length."""
    assert found is not None and exact is not None
    assert found.shape == exact.shape
    return ((found.double() - exact).norm() / exact.norm()).item()


def columns_of_a_wider_tensor(x: torch.Tensor) -> torch.Tensor:
    wide = torch.full((x.shape[0], x.shape[1] + 9), torch.nan, dtype=x.dtype)
    wide[:, 4 : 4 + x.shape[1]] = x
    return wide[:, 4 : 4 + x.shape[1]]


def every_other_row(x: torch.Tensor) -> torch.Tensor:
    long = torch.full((2 * x.shape[0], x.shape[1]), torch.nan, dtype=x.dtype)
    long[::2] = x
    return long[::2]


def transposed(x: torch.Tensor) -> torch.Tensor:
    return x.t().contiguous().t()


LAYOUTS: list[Layout] = [columns_of_a_wider_tensor, every_other_row, transposed]

Check = Callable[..., None]
every_type = pytest.mark.parametrize(
    "check", [assert_float32_is_exact, assert_bfloat16_is_as_exact_as_torch], ids=["float32", "bfloat16"]
)
