"""Inputs of every operation, by shape."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from against_float64 import Case, Tensors, draw

from lorafy.kernels.nouns import SITES, Dropout, Linear, LoraPart, Norm, Rotary, Sequences, TokenRows
from lorafy.types import IGNORE_INDEX

Columns = Sequence[tuple[int, int]]
"""Where each adapter starts, and how wide it is."""

GAPS: Columns = [(3, 20), (30, 1), (40, 17)]
"""Of 67 columns: before, between and behind them are some without an adapter."""

RAGGED = [1, 2, 70, 17, 47, 48, 49, 3]
"""Lengths on both sides of a vector (16) and of a block of queries (48)."""


def seeds_of(num_rows: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-(2**31), 2**31, (num_rows,), generator=generator).to(torch.int32)


def lora_case(
    num_rows: int,
    num_in: int,
    num_out: int,
    r: int,
    parts: Columns,
    p: float = 0.0,
    *,
    bias: bool = True,
    in_first: bool = False,
    taller: int = 0,
) -> Case:
    """Each part drops at a site of its own and has its own scaling. taller: B has so many rows above and below those
    that are used, as where a layer is some columns of the one that was adapted."""
    weight = draw(num_out, num_in, seed=1, scale=num_in**-0.5)
    biases = draw(num_out, seed=2) if bias else None
    seeds = seeds_of(num_rows) if p else None
    singles: Tensors = {}
    for index, (_, width) in enumerate(parts):
        singles[f"A{index}"] = draw(r, num_in, seed=10 + index, scale=num_in**-0.5)
        singles[f"B{index}"] = draw(width + 2 * taller, r, seed=20 + index, scale=r**-0.5)

    def call(ops: Any, inputs: Tensors, dtype: torch.dtype) -> list[torch.Tensor]:
        single = torch.float32 if dtype == torch.bfloat16 else dtype
        stored = (weight.t().contiguous() if in_first else weight).to(dtype)
        adapters = []
        for i, (start, width) in enumerate(parts):
            rows = (taller, taller + width) if taller else None
            matrices, dropout = (inputs[f"A{i}"], inputs[f"B{i}"]), Dropout(p, (i + 1) * SITES)
            adapters.append(LoraPart(*matrices, 0.5 * (i + 1), dropout, start, rows))
        linear = Linear(stored, None if biases is None else biases.to(single), adapters, in_first)
        return [ops.lora_linear(inputs["x"], linear, seeds)]

    return Case(call, {"x": draw(num_rows, num_in, seed=3)}, singles)


def attention_case(
    lengths: Sequence[int],
    heads: int,
    kv_heads: int,
    width: int,
    p: float = 0.0,
    *,
    causal: bool = False,
    queries: Sequence[int] | None = None,
    spare: int = 0,
    apart: bool = True,
    scale: float | None = None,
) -> Case:
    """queries: of each sequence; None: as many as keys. spare: rows behind the last sequence. apart: q beside kv, or
    all three in one tensor."""
    num_keys, num_queries = sum(lengths) + spare, sum(queries or lengths) + spare
    starts, query_starts = (
        torch.tensor([0, *accumulate(each)], dtype=torch.int32) for each in (lengths, queries or lengths)
    )
    sequences = Sequences(starts, query_starts, heads, kv_heads, width, scale or width**-0.5, causal, max(lengths))
    seeds = seeds_of(num_queries) if p else None

    def call(ops: Any, inputs: Tensors, dtype: torch.dtype) -> list[torch.Tensor]:
        return [ops.attention(inputs["q"], inputs.get("kv"), sequences, Dropout(p, 7 * SITES), seeds)]

    if apart:
        shapes = {"q": (num_queries, heads * width), "kv": (num_keys, 2 * kv_heads * width)}
    else:
        shapes = {"q": (num_keys, (heads + 2 * kv_heads) * width)}
    return Case(call, {name: draw(*shape, seed=4 + i) for i, (name, shape) in enumerate(shapes.items())}, {})


def add_norm_case(
    num_rows: int,
    width: int,
    p: float = 0.0,
    *,
    rms: bool = False,
    bias: bool = True,
    post: bool = False,
    both: bool = True,
    with_y: bool = True,
) -> Case:
    """both: the next residual is read, too, not the normed rows alone."""
    weight, biases = 1 + draw(width, seed=5, scale=0.3), draw(width, seed=6) if bias and not rms else None
    seeds = seeds_of(num_rows) if p else None

    def call(ops: Any, inputs: Tensors, dtype: torch.dtype) -> list[torch.Tensor]:
        single = torch.float32 if dtype == torch.bfloat16 else dtype
        norm = Norm(weight.to(single), None if biases is None else biases.to(single), 1e-5, rms)
        outputs = ops.add_norm(inputs["residual"], inputs.get("y"), norm, Dropout(p, 3 * SITES), seeds, dtype, post)
        return list(outputs) if both else [outputs[1]]

    residual = {"residual": 0.5 + 2 * draw(num_rows, width, seed=7)}
    rows = {"y": draw(num_rows, width, seed=8)} if with_y else {}
    return Case(call, rows, residual)


def activation_case(num_rows: int, width: int, kind: str, gated: bool = False) -> Case:
    """width: of the output."""

    def call(ops: Any, inputs: Tensors, dtype: torch.dtype) -> list[torch.Tensor]:
        return [ops.activation(inputs["x"], kind, gated)]

    return Case(call, {"x": draw(num_rows, width * (2 if gated else 1), seed=9, scale=3)}, {})


def drop_case(num_rows: int, width: int, p: float) -> Case:
    seeds = seeds_of(num_rows)

    def call(ops: Any, inputs: Tensors, dtype: torch.dtype) -> list[torch.Tensor]:
        return [ops.drop(inputs["x"], Dropout(p, 5 * SITES), seeds)]

    return Case(call, {"x": draw(num_rows, width, seed=9)}, {})


def rotary_case(num_rows: int, num_heads: int, width: int, rest: int, *, normed: bool) -> Case:
    """Angles of the first positions. rest: columns behind the heads that are turned."""
    angles = torch.arange(num_rows)[:, None] * 10_000.0 ** (-torch.arange(0, width, 2) / width)
    angles = torch.cat([angles, angles], 1).double()
    gammas = 1 + draw(num_heads, width, seed=5, scale=0.3)

    def call(ops: Any, inputs: Tensors, dtype: torch.dtype) -> list[torch.Tensor]:
        single = torch.float32 if dtype == torch.bfloat16 else dtype
        cosine, sine = angles.cos().to(single), angles.sin().to(single)
        positions = Rotary(cosine, sine, num_heads, gammas.to(single) if normed else None, 1e-6)
        return [ops.rotary(inputs["x"], positions)]

    return Case(call, {"x": draw(num_rows, num_heads * width + rest, seed=9)}, {})


def cross_entropy_case(
    num_rows: int, width: int, vocabulary: int, *, bias: bool = False, unlabelled: int = 0, trained: bool = False
) -> Case:
    """unlabelled: so many rows at the end, and one at the start, have no label. trained: three rows of W are."""
    weight = draw(vocabulary, width, seed=1, scale=2 * width**-0.5)
    biases = draw(vocabulary, seed=2) if bias else None
    labels = torch.randint(0, vocabulary, (num_rows,), generator=torch.Generator().manual_seed(3))
    if unlabelled:
        labels[-unlabelled:] = labels[0] = IGNORE_INDEX

    def call(ops: Any, inputs: Tensors, dtype: torch.dtype) -> list[torch.Tensor]:
        single = torch.float32 if dtype == torch.bfloat16 else dtype
        linear = Linear(weight.to(dtype), None if biases is None else biases.to(single), [])
        rows = None
        if trained:
            rows = TokenRows(tokens, inputs["values"], weight[tokens].to(single))
        loss, num_correct = ops.cross_entropy(inputs["x"], linear, labels, rows)
        assert not num_correct.requires_grad
        return [loss[None, None]]

    tokens = torch.tensor([vocabulary - 1, 0, vocabulary // 2])
    values = {"values": draw(3, width, seed=10, scale=2 * width**-0.5)} if trained else {}
    return Case(call, {"x": draw(num_rows, width, seed=9)}, values)


PASSES = {
    "add_norm": add_norm_case(29, 37, 0.1),
    "add_norm, post": add_norm_case(29, 37, 0.1, post=True),
    "add_norm, RMS": add_norm_case(29, 37, rms=True),
    "gelu": activation_case(29, 37, "gelu"),
    "gelu_tanh": activation_case(29, 37, "gelu_tanh"),
    "gated silu": activation_case(29, 37, "silu", True),
    "relu": activation_case(29, 37, "relu"),
    "drop": drop_case(29, 37, 0.1),
    "rotary": rotary_case(29, 3, 20, 40, normed=False),
    "normed rotary": rotary_case(29, 3, 20, 40, normed=True),
    "cross_entropy": cross_entropy_case(29, 20, 300, bias=True, unlabelled=3),
}
"""What lies between products and attention."""
