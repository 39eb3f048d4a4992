"""Operations in float32 by torch's own products, for processors without AVX-512, where nothing is dropped.

The C++ of cpu/ keeps tiles of sums in registers of 64 bytes. AVX2 has half of them at half the width, so that they
spill: there LoRA's products took 2 to 5 times as long as torch's, attention over 140 tokens 14 times (docs/log.md).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from .nouns import Linear, Sequences

NARROW = "AVX512" not in torch.backends.cpu.get_cpu_capability()
LONG = 32
"""Tokens of the longest sequence from which on one call a sequence is faster than one for all: at 14 both take as long,
at 40 torch needs a fifth to a third of the time."""


def lora_linear(x: torch.Tensor, linear: Linear) -> torch.Tensor:
    """See reference.py. x: float32."""
    return _LoraLinear.apply(x, linear, *(tensor for part in linear.parts for tensor in part.matrices))


class _LoraLinear(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, linear: Linear, *trained: torch.Tensor) -> Any:
        y = torch.mm(x, linear.forward_weight())
        if linear.bias is not None:
            y += linear.bias
        reduced = [x @ lora_A.t() for lora_A in trained[::2]]
        for part, h, lora_B in zip(linear.parts, reduced, trained[1::2], strict=True):
            y.narrow(1, part.start, lora_B.shape[0]).addmm_(h, lora_B.t(), alpha=part.scaling)
        ctx.linear = linear
        ctx.save_for_backward(x, *reduced, *trained)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> Any:
        linear: Linear = ctx.linear
        x, *others = ctx.saved_tensors
        reduced, trained = others[: len(linear.parts)], others[len(linear.parts) :]
        needs = ctx.needs_input_grad
        dx = torch.mm(dy, linear.backward_weight()) if needs[0] else None
        grads: list[torch.Tensor | None] = []
        for index, (part, h) in enumerate(zip(linear.parts, reduced, strict=True)):
            lora_A, lora_B = trained[2 * index : 2 * index + 2]
            wants_A, wants_B = needs[2 + 2 * index : 4 + 2 * index]
            mine = dy.narrow(1, part.start, lora_B.shape[0])
            d_h = part.scaling * (mine @ lora_B)
            grads += [d_h.t() @ x if wants_A else None, part.scaling * (mine.t() @ h) if wants_B else None]
            if dx is not None:
                dx.addmm_(d_h, lora_A)
        return dx, None, *grads


def attention(q: torch.Tensor, kv: torch.Tensor | None, sequences: Sequences) -> torch.Tensor:
    """See reference.py. q, kv: float32."""
    heads, kv_heads, width = sequences.num_heads, sequences.num_kv_heads, sequences.head_width
    # `split`, whose backward pass is one `cat`; a slice's would fill the whole with zeros, once for each sequence.
    columns = [kv_heads * width] * 2
    queries, keys, values = q.split([heads * width, *columns], 1) if kv is None else (q, *kv.split(columns, 1))
    lengths, key_lengths = _lengths(sequences.query_starts, len(q)), _lengths(sequences.starts, len(keys))
    out = []
    rows = zip(queries.split(lengths), keys.split(key_lengths), values.split(key_lengths), strict=True)
    for one, its_keys, its_values in list(rows)[:-1]:
        mask, count = None, len(its_keys)
        if sequences.causal and len(one) != count:  # the queries are the last of its rows
            mask = torch.ones(len(one), count, dtype=torch.bool).tril(count - len(one))
        k, v = (
            part.view(1, count, kv_heads, width).transpose(1, 2).repeat_interleave(heads // kv_heads, 1)
            for part in (its_keys, its_values)
        )
        context = functional.scaled_dot_product_attention(
            one.view(1, len(one), heads, width).transpose(1, 2),
            k,
            v,
            attn_mask=mask,
            is_causal=sequences.causal and mask is None,
            scale=sequences.scale,
        )
        out.append(context.transpose(1, 2).reshape(len(one), heads * width))
    return torch.cat([*out, q.new_zeros(lengths[-1], heads * width)])


def _lengths(starts: torch.Tensor, num_rows: int) -> list[int]:
    """Of each sequence; then how many rows are of none."""
    places = starts.tolist()
    return [*(end - start for start, end in pairwise(places)), num_rows - places[-1]]
