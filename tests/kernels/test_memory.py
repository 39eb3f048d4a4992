"""Parameters get other memory: what stays of them, what they share from then on, and that one file alone does it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch.nn import Parameter

import lorafy
from lorafy.kernels.memory import flatten, hold_in, join

SOURCE = Path(lorafy.__file__).parent
REBINDS = re.compile(r"\.data\s*=(?!=)")
"""An assignment to `.data`. In-place writes (`p.data.copy_()`) leave the memory what it is."""


def test_nothing_else_gives_parameters_other_memory() -> None:
    found = set()
    for path in sorted(SOURCE.rglob("*.py")):
        place = path.relative_to(SOURCE)
        if place.parts[0] != "scratch" and REBINDS.search(path.read_text(encoding="utf-8")):
            found.add(place.as_posix())
    assert found == {"kernels/memory.py"}


def parameters(*shapes: tuple[int, ...], trained: bool = True) -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [Parameter(torch.randn(shape, generator=generator), requires_grad=trained) for shape in shapes]


def storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@pytest.mark.parametrize(("axis", "shapes"), [(0, [(3, 5), (4, 5), (1, 5)]), (1, [(5, 3), (5, 4), (5, 1)])])
def test_joined_parameters_keep_their_values_and_share_one_tensor(axis: int, shapes: list[tuple[int, ...]]) -> None:
    some = parameters(*shapes, trained=False)
    before = [parameter.detach().clone() for parameter in some]
    joined = join(some, axis)
    assert torch.equal(joined, torch.cat(before, axis)) and not joined.requires_grad
    for parameter, values in zip(some, before, strict=True):
        assert isinstance(parameter, Parameter) and not parameter.requires_grad
        assert torch.equal(parameter, values) and storage(parameter) == storage(joined)
    joined.zero_()
    assert all(parameter.count_nonzero() == 0 for parameter in some)


def test_flat_parameters_and_their_gradients_are_views() -> None:
    some = parameters((3, 5), (2,), (1, 4))
    before = [parameter.detach().clone() for parameter in some]
    flat = flatten(some)
    assert torch.equal(flat, torch.cat([values.flatten() for values in before]))
    assert flat.grad is not None and flat.grad.count_nonzero() == 0
    for parameter, values in zip(some, before, strict=True):
        assert parameter.is_leaf and parameter.requires_grad
        assert torch.equal(parameter, values) and storage(parameter) == storage(flat)
    for index, parameter in enumerate(some):
        ((index + 1) * parameter).sum().backward()
    assert flat.grad.tolist() == [1.0] * 15 + [2.0] * 2 + [3.0] * 4
    with torch.no_grad():
        flat.sub_(flat.grad)
    for index, (parameter, values) in enumerate(zip(some, before, strict=True)):
        assert torch.equal(parameter, values - (index + 1))


def test_a_view_that_was_taken_before_sees_the_old_memory() -> None:
    (parameter,) = parameters((2, 3))
    old, values = parameter.detach(), parameter.detach().clone()
    flatten([parameter])
    with torch.no_grad():
        parameter.zero_()
    assert torch.equal(old, values)


def test_held_in_another_dtype_it_is_the_same_parameter_rounded() -> None:
    layer = torch.nn.Linear(4, 3).requires_grad_(False)
    weight, values = layer.weight, layer.weight.detach().clone()
    assert isinstance(weight, Parameter)
    hold_in(weight, torch.bfloat16)
    assert layer.weight is weight and not weight.requires_grad
    assert weight.dtype == torch.bfloat16 and torch.equal(weight, values.bfloat16())
