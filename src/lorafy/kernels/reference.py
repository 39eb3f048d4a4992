"""Every operation of the fast path in plain torch, differentiable by autograd, in any dtype: the definition.

Rows are tokens, the sequences of a batch one behind the other, without padding. A dropout mask is a function of its
row's seed, its site and the column, so how a step is cut into batches changes no mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from ..types import IGNORE_INDEX
from .nouns import Dropout, Linear, Norm, Rotary, Sequences, TokenRows

_BITS = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9


def lora_linear(x: torch.Tensor, linear: Linear, seeds: torch.Tensor | None) -> torch.Tensor:
    """W x + b, and (alpha / r) B A dropout(x) for each part of the output that has an adapter (Hu et al. 2021, 4.1).

    x: (M, in) -> (M, out). seeds: of each row's dropout, (M,) int32; None in evaluation: then nothing is dropped.
    """
    y = x @ linear.forward_weight().to(x.dtype)
    if linear.bias is not None:
        y = y + linear.bias.to(x.dtype)
    for part in linear.parts:
        dropped = drop(x, part.dropout, seeds)
        lora_A, lora_B = part.matrices
        update = part.scaling * (dropped @ lora_A.t().to(x.dtype)) @ lora_B.t().to(x.dtype)
        y = y + functional.pad(update, (part.start, linear.out_features - part.start - update.shape[1]))
    return y


def attention(
    q: torch.Tensor, kv: torch.Tensor | None, sequences: Sequences, dropout: Dropout, seeds: torch.Tensor | None
) -> torch.Tensor:
    """softmax(scale q k^T) v in each sequence and head alone: (Mq, heads * D).

    q: (Mq, heads * D) beside kv: (M, 2 * kv_heads * D), keys first; or kv is None and q holds all three side by side.
    A key head serves heads / kv_heads neighbouring query heads. Rows of no sequence come out as zeros. seeds: (Mq,).
    """
    q, k, v = sequences.split(q, kv)
    group, width = sequences.num_heads // sequences.num_kv_heads, sequences.head_width
    out = torch.zeros_like(q)
    starts, key_starts = sequences.query_starts.tolist(), sequences.starts.tolist()
    for first, last, first_key, last_key in zip(starts, starts[1:], key_starts, key_starts[1:], strict=False):
        n, count = last - first, last_key - first_key
        heads = []
        for head in range(sequences.num_heads):
            mine, shared = (
                slice(head * width, (head + 1) * width),
                slice(head // group * width, (head // group + 1) * width),
            )
            scores = sequences.scale * q[first:last, mine] @ k[first_key:last_key, shared].t()
            if sequences.causal:
                hidden = torch.ones(n, count, dtype=torch.bool).triu(count - n + 1)
                scores = scores.masked_fill(hidden, -torch.inf)
            probabilities = scores.softmax(-1)
            if seeds is not None and dropout.p > 0:
                probabilities = probabilities * factors(dropout, seeds[first:last], count, q.dtype, head)
            heads.append(probabilities @ v[first_key:last_key, shared])
        out = out.index_copy(0, torch.arange(first, last), torch.cat(heads, 1))
    return out


def add_norm(
    residual: torch.Tensor,
    y: torch.Tensor | None,
    norm: Norm,
    dropout: Dropout,
    seeds: torch.Tensor | None,
    dtype: torch.dtype,
    post: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer norm or RMS norm of residual + dropout(y): (the next residual, the normed rows), both (M, H).

    residual: float32 beside a y of bfloat16, as under autocast. dtype: of the normed rows. The next residual is the sum
    (pre-norm), or where `post` the normed rows (post-norm; Xiong et al. 2020, figure 1), not rounded to `dtype`.
    """
    total = residual if y is None else residual + drop(y.to(residual.dtype), dropout, seeds)
    weight = norm.weight.to(total.dtype)
    if norm.rms:
        normed = functional.rms_norm(total, weight.shape, weight, norm.epsilon)
    else:
        bias = None if norm.bias is None else norm.bias.to(total.dtype)
        normed = functional.layer_norm(total, weight.shape, weight, bias, norm.epsilon)
    return normed if post else total, normed.to(dtype)


def rotary(x: torch.Tensor, positions: Rotary) -> torch.Tensor:
    """x: (M, columns), the heads to turn first; what follows them stays."""
    num_rows, width = positions.cosine.shape
    turned = positions.num_heads * width
    heads = x[:, :turned].view(num_rows, positions.num_heads, width)
    if positions.gammas is not None:
        heads = functional.rms_norm(heads, (width,), None, positions.epsilon) * positions.gammas.to(x.dtype)
    cosine, sine = positions.cosine[:, None].to(x.dtype), positions.sine[:, None].to(x.dtype)
    left, right = heads.chunk(2, -1)
    heads = heads * cosine + torch.cat([-right, left], -1) * sine
    return torch.cat([heads.flatten(1), x[:, turned:]], 1)


def cross_entropy(
    x: torch.Tensor, linear: Linear, labels: torch.Tensor, rows: TokenRows | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses of W x against `labels` SUMMED, and how many labels have the greatest logit. x: (K, H); labels: (K,),
    negative where there is none. rows: of W, that are trained."""
    logits = lora_linear(x, linear, None)
    if rows is not None:
        change = rows.change
        logits = logits.index_add(1, rows.tokens, (x.to(change.dtype) @ change.T).to(logits.dtype))
    logits = logits.float() if logits.dtype == torch.bfloat16 else logits
    loss = functional.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORE_INDEX)
    return loss, (logits.detach().argmax(-1) == labels).sum()


def activation(x: torch.Tensor, kind: str, gated: bool = False) -> torch.Tensor:
    """kind: gelu, gelu_tanh, silu or relu. Gated: the left half of each row through it, times the right half."""
    if gated:
        left, right = x.chunk(2, 1)
        return activation(left, kind) * right
    if kind == "relu":
        return x.relu()
    if kind == "silu":
        return functional.silu(x)
    return functional.gelu(x, approximate="tanh") if kind == "gelu_tanh" else functional.gelu(x)


def drop(x: torch.Tensor, dropout: Dropout, seeds: torch.Tensor | None) -> torch.Tensor:
    """x: (M, H); what is kept is divided by 1 - p."""
    if seeds is None or dropout.p == 0:
        return x
    return x * factors(dropout, seeds, x.shape[1], x.dtype)


def factors(dropout: Dropout, seeds: torch.Tensor, num_columns: int, dtype: torch.dtype, head: int = 0) -> torch.Tensor:
    """0 or 1 / (1 - p) for each row and column: (M, num_columns)."""
    rows = _mix((seeds.long() + (dropout.site + head) * _GOLDEN) & _BITS)
    columns = torch.arange(num_columns, device=seeds.device) * _GOLDEN
    draws = _mix((rows[:, None] + columns) & _BITS)
    return (draws >= int(dropout.p * 2**32)).to(dtype) / (1 - dropout.p)


def row_seeds(seed: int, rows: Sequence[int], positions: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """One dropout seed a row, from the step's, the example's number and the token's place in it: (M,) int32."""
    examples = torch.tensor(rows, dtype=torch.long).repeat_interleave(torch.tensor(lengths))
    mixed = _mix(_mix((examples + seed) & _BITS) + positions.long() * _GOLDEN & _BITS)
    return (mixed - (mixed >> 31 << 32)).to(torch.int32)


def _mix(x: torch.Tensor) -> torch.Tensor:
    """The finalizer of MurmurHash3 (32 bits) on int64, whose overflow leaves the low 32 bits right."""
    x = x ^ (x >> 16)
    x = (x * 0x85EBCA6B) & _BITS
    x = x ^ (x >> 13)
    x = (x * 0xC2B2AE35) & _BITS
    return x ^ (x >> 16)
