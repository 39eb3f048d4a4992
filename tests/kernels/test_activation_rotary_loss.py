"""Activations, rotary positions, and the loss over a vocabulary in pieces."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from against_float64 import Check, assert_close, assert_float32_is_exact, every_type, outcome
from cases import activation_case, cross_entropy_case, rotary_case

from lorafy.kernels import compiled, reference
from lorafy.kernels.nouns import Linear
from lorafy.types import IGNORE_INDEX


@every_type
@pytest.mark.parametrize("kind", ["gelu", "gelu_tanh", "silu", "relu"])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("num_rows, width", [(1, 1), (1, 17), (7, 100), (130, 33)])
def test_activation(check: Check, kind: str, gated: bool, num_rows: int, width: int) -> None:
    check(activation_case(num_rows, width, kind, gated))


@pytest.mark.parametrize("kind", ["gelu", "gelu_tanh", "silu"])
def test_activation_far_from_zero(kind: str) -> None:
    case = activation_case(2, 201, kind)

    def spread(inputs: dict[str, torch.Tensor]) -> None:
        far = torch.linspace(-100, 100, 201).double()
        inputs["x"].copy_(torch.stack([far, 1000 * far]))

    exact = outcome(case, reference, torch.float64, change=spread)
    found = outcome(case, compiled, torch.float32, change=spread)
    for row in (0, 1):
        for name, expected in exact.items():
            tensor = found[name]
            assert tensor is not None and expected is not None
            assert_close(tensor[row], expected[row], f"{name}, row {row}")


def test_relu_has_no_slope_at_zero() -> None:
    x = torch.zeros(3, 20, requires_grad=True)
    compiled.activation(x, "relu").sum().backward()
    assert x.grad is not None and not x.grad.any()


@every_type
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(
    "num_rows, num_heads, width, rest",
    [(1, 1, 2, 0), (17, 3, 8, 5), (70, 4, 20, 40), (33, 2, 128, 128), (5, 1, 512, 0)],
)
def test_rotary(check: Check, normed: bool, num_rows: int, num_heads: int, width: int, rest: int) -> None:
    check(rotary_case(num_rows, num_heads, width, rest, normed=normed))


@every_type
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("num_rows, width, vocabulary", [(1, 64, 1_000), (16, 32, 257), (50, 20, 1_000)])
def test_cross_entropy(check: Check, bias: bool, num_rows: int, width: int, vocabulary: int) -> None:
    check(cross_entropy_case(num_rows, width, vocabulary, bias=bias, unlabelled=num_rows // 5))


@every_type
@pytest.mark.parametrize("bias", [False, True])
def test_cross_entropy_with_rows_that_are_trained(check: Check, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    check(cross_entropy_case(50, 20, 1_000, bias=bias, unlabelled=3, trained=True))
    monkeypatch.setattr(compiled, "LOGITS_BYTES", 1)
    check(cross_entropy_case(50, 20, 1_000, bias=bias, unlabelled=3, trained=True))


def test_the_vocabulary_in_pieces_is_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    case = cross_entropy_case(50, 20, 1_000, bias=True, unlabelled=3)
    monkeypatch.setattr(compiled, "LOGITS_BYTES", 1)
    assert_float32_is_exact(case)


def counted(x: torch.Tensor, labels: torch.Tensor) -> list[int]:
    """num_correct by both, for logits that are x."""
    linear = Linear(torch.eye(x.shape[1], dtype=x.dtype), None, [])
    return [int(ops.cross_entropy(x, linear, labels)[1]) for ops in (reference, compiled)]


def test_the_labels_that_are_right_are_counted() -> None:
    logits = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(200) % 5
    labels[::7] = IGNORE_INDEX
    expected, found = counted(logits, labels)
    assert 20 < expected < 80 and found == expected


def test_of_equal_logits_the_first_is_the_answer() -> None:
    """In bfloat16 they are common: as argmax, whichever path has computed them."""
    logits = torch.tensor([[1.0, 3.0, 3.0, 0.0]]).repeat(3, 1)
    expected, found = counted(logits, torch.tensor([0, 1, 2]))
    assert expected == 1
    assert found == expected


def test_logits_beyond_the_range_of_exp() -> None:
    logits = torch.tensor([[-300.0, 400.0, 395.0], [500.0, 0.0, 1.0]], dtype=torch.float64)
    linear, labels = Linear(torch.eye(3).double(), None, []), torch.tensor([2, 1])
    exact = reference.cross_entropy(logits, linear, labels)[0]
    single = Linear(torch.eye(3), None, [])
    found = compiled.cross_entropy(logits.float().requires_grad_(), single, labels)[0]
    assert_close(found[None], exact[None], "loss")


def test_no_label_at_all() -> None:
    case = cross_entropy_case(16, 20, 100, unlabelled=16)
    found = outcome(case, compiled, torch.float32)
    assert found["output 0"] is not None and found["gradient of x"] is not None
    assert not found["output 0"].any() and not found["gradient of x"].any()


def test_a_loss_that_is_scaled() -> None:
    """Its gradient is computed before it is known by what."""
    (inputs,) = (cross_entropy_case(16, 20, 100).inputs(torch.float32),)
    linear, labels = Linear(torch.randn(100, 20), None, []), torch.arange(16)
    grads: list[torch.Tensor] = []
    for scale in (1.0, 0.25):
        inputs["x"].grad = None
        (scale * compiled.cross_entropy(inputs["x"], linear, labels)[0]).backward()
        assert inputs["x"].grad is not None
        grads.append(inputs["x"].grad / scale)
    assert torch.equal(*grads)


def test_nothing_is_computed_for_a_gradient_that_nobody_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    products = []
    real = torch.mm

    def counted(*both: torch.Tensor, **out: Any) -> torch.Tensor:
        products.append(both)
        return real(*both, **out)

    monkeypatch.setattr(torch, "mm", counted)
    linear = Linear(torch.randn(100, 20), None, [])
    compiled.cross_entropy(torch.randn(16, 20), linear, torch.arange(16))
    assert len(products) == 1
