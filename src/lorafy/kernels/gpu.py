"""The operations of reference.py on a GPU: products and ragged attention by torch, the passes between them each
compiled to one kernel where Triton is. On a CPU all of it is plain torch, and the tests hold it there.

Every row belongs to a sequence: attention leaves other rows undefined.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Sequence
from functools import cache, wraps
from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ..types import IGNORE_INDEX
from . import reference
from .nouns import Dropout, Linear, Norm, Rotary, Sequences, TokenRows

LOGITS_BYTES = 2**29
"""Of the language head at once: above 1,000 rows of a vocabulary of 150,000. Fewer rows are slower on a GPU."""

OLDEST = (8, 0)
"""Compute capability (Ampere) from which ragged attention and bf16 products are there."""


class CannotRun(Exception):
    """Why these operations do not run on this GPU."""


@cache
def require(device: torch.device) -> None:
    """Tries attention on the GPU. Raises CannotRun with the reason."""
    if torch.cuda.get_device_capability(device) < OLDEST:
        raise CannotRun(f"{torch.cuda.get_device_name(device)} has no ragged attention in bf16 (that came with Ampere)")
    x = torch.ones(4, 64, dtype=torch.bfloat16, device=device, requires_grad=True)
    starts = torch.tensor([0, 1, 4], dtype=torch.int32, device=device)
    sequences = Sequences(starts, starts, 2, 2, 32, 1.0, True, 3)
    try:
        for seeds in (None, starts[:1].expand(4)):
            attention(x, torch.cat([x, x], 1), sequences, Dropout(0.1, 0), seeds).sum().backward()
    except (ImportError, RuntimeError) as error:
        raise CannotRun(f"torch's ragged attention fails here: {first_line(error)}") from error


@cache
def why_not_fused(device: torch.device) -> str | None:
    """Why passes over rows are not compiled, None where they are."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    try:
        torch.compile(functional.gelu, dynamic=True)(torch.ones(2, 8, device=device))
    except Exception as error:  # whatever a missing compiler or header makes of it: plain torch computes the same
        return f"torch.compile fails: {first_line(error)}"
    return None


def what_is_missing() -> tuple[str | None, str | None]:
    """Why these operations do not run on the current GPU, and why their passes are not fused; None where they are."""
    device = torch.device("cuda", torch.cuda.current_device())
    try:
        require(device)
    except CannotRun as error:
        return str(error), None
    return None, why_not_fused(device)


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _one_pass(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled on first use where the first argument is on a GPU; for any number of rows."""

    @cache
    def compiled() -> Callable[..., Any]:
        return torch.compile(function, dynamic=True)

    @wraps(function)
    def call(x: torch.Tensor, *arguments: Any) -> Any:
        fused = x.device.type == "cuda" and why_not_fused(x.device) is None
        return (compiled() if fused else function)(x, *arguments)

    return call


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def lora_linear(x: torch.Tensor, linear: Linear, seeds: torch.Tensor | None) -> torch.Tensor:
    return _LoraLinear.apply(x, linear, seeds, *(tensor for part in linear.parts for tensor in part.matrices))


class _LoraLinear(Function):
    """Two products for each adapter beside the frozen one. Dropped rows are made again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, linear: Linear, seeds: torch.Tensor | None, *trained: torch.Tensor) -> Any:
        weight = linear.forward_weight()
        y = torch.mm(x, weight) if linear.bias is None else torch.addmm(linear.bias.to(x.dtype), x, weight)
        reduced = []
        for part, lora_A, lora_B in zip(linear.parts, trained[::2], trained[1::2], strict=True):
            h = torch.mm(drop(x, part.dropout, seeds), lora_A.t().to(x.dtype))
            y.narrow(1, part.start, len(lora_B)).addmm_(h, lora_B.t().to(x.dtype), alpha=part.scaling)
            reduced.append(h)
        ctx.linear, ctx.seeds = linear, seeds
        ctx.save_for_backward(x, *reduced, *trained)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> Any:
        linear: Linear = ctx.linear
        num_parts = len(linear.parts)
        x, *saved = ctx.saved_tensors
        reduced, trained = saved[:num_parts], saved[num_parts:]
        needs = ctx.needs_input_grad[3:]
        dx = torch.mm(dy, linear.backward_weight()) if ctx.needs_input_grad[0] else None
        grads: list[torch.Tensor | None] = []
        for i, part in enumerate(linear.parts):
            lora_A, lora_B = trained[2 * i : 2 * i + 2]
            columns = dy.narrow(1, part.start, len(lora_B))
            dh = torch.mm(columns, lora_B.to(x.dtype)).mul_(part.scaling)
            if dx is not None:
                dx = _plus(dx, torch.mm(dh, lora_A.to(x.dtype)), part.dropout, ctx.seeds)
            dropped = drop(x, part.dropout, ctx.seeds) if needs[2 * i] else None
            grads.append(None if dropped is None else torch.mm(dh.t(), dropped).to(lora_A.dtype))
            needs_B = needs[2 * i + 1]
            grads.append(torch.mm(columns.t(), reduced[i]).to(lora_B.dtype).mul_(part.scaling) if needs_B else None)
        return dx, None, None, *grads


def _plus(x: torch.Tensor, y: torch.Tensor, dropout: Dropout, seeds: torch.Tensor | None) -> torch.Tensor:
    """x + dropout(y)"""
    return x.add_(y) if seeds is None or dropout.p == 0 else _added(x, y, dropout.p, dropout.site, seeds)


@_one_pass
def _added(x: torch.Tensor, y: torch.Tensor, p: float, site: int, seeds: torch.Tensor) -> torch.Tensor:
    return x + reference.drop(y, Dropout(p, site), seeds)


def attention(
    q: torch.Tensor, kv: torch.Tensor | None, sequences: Sequences, dropout: Dropout, seeds: torch.Tensor | None
) -> torch.Tensor:
    """Where probabilities are dropped, the masks come from torch's generator, not from `seeds`."""
    q_heads, k, v = (x.unflatten(1, (-1, sequences.head_width)) for x in sequences.split(q, kv))
    p = 0.0 if seeds is None else dropout.p
    starts, query_starts = sequences.starts, sequences.query_starts
    if not sequences.causal or query_starts is starts:
        return _ragged(q_heads, k, v, query_starts, sequences, p).flatten(1)
    # Each at its place among all rows: where kernels put fewer queries than keys under a causal mask differs.
    behind = (starts[1:] - query_starts[1:]).repeat_interleave(query_starts.diff(), output_size=len(q))
    rows = behind + torch.arange(len(q), device=q.device)
    all_q = q.new_zeros(len(k), *q_heads.shape[1:]).index_copy(0, rows, q_heads)
    return _ragged(all_q, k, v, starts, sequences, p).flatten(1).index_select(0, rows)


def _ragged(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, query_starts: torch.Tensor, sequences: Sequences, p: float
) -> torch.Tensor:
    """q: (Mq, heads, D); k, v: (M, kv_heads, D) -> (Mq, heads, D). Causal only with as many queries as keys."""
    group = sequences.num_heads // sequences.num_kv_heads
    if group > 1 and (p > 0 or not _groups_itself()):
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    starts, longest, scale = sequences.starts, sequences.longest, sequences.scale
    if p == 0:
        return varlen(q, k, v, query_starts, starts, longest, causal=sequences.causal, scale=scale)
    # varlen_attn knows no dropout; the same kernel behind scaled_dot_product_attention does.
    nested_q, nested_k, nested_v = (
        torch.nested.nested_tensor_from_jagged(x.contiguous(), offsets, min_seqlen=1, max_seqlen=longest).transpose(
            1, 2
        )
        for x, offsets in ((q, query_starts), (k, starts), (v, starts))
    )
    out = functional.scaled_dot_product_attention(
        nested_q, nested_k, nested_v, dropout_p=p, is_causal=sequences.causal, scale=scale
    )
    return out.transpose(1, 2).values()


def varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    query_starts: torch.Tensor,
    starts: torch.Tensor,
    longest: int,
    *,
    causal: bool,
    scale: float,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    more: dict[str, Any] = {"enable_gqa": True} if q.shape[1] != k.shape[1] else {}
    window = (-1, 0 if causal else -1)
    out = varlen_attn(q, k, v, query_starts, starts, longest, longest, scale=scale, window_size=window, **more)
    assert isinstance(out, torch.Tensor)
    return out


@cache
def _groups_itself() -> bool:
    """From torch 2.12 on a key head may serve several query heads."""
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters


def add_norm(
    residual: torch.Tensor,
    y: torch.Tensor | None,
    norm: Norm,
    dropout: Dropout,
    seeds: torch.Tensor | None,
    dtype: torch.dtype,
    post: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    settings = norm.epsilon, norm.rms, dropout.p, dropout.site
    return _add_norm(residual, y, norm.weight, norm.bias, *settings, seeds, dtype, post)


@_one_pass
def _add_norm(
    residual: torch.Tensor,
    y: torch.Tensor | None,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    epsilon: float,
    rms: bool,
    p: float,
    site: int,
    seeds: torch.Tensor | None,
    dtype: torch.dtype,
    post: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    return reference.add_norm(residual, y, Norm(weight, bias, epsilon, rms), Dropout(p, site), seeds, dtype, post)


def rotary(x: torch.Tensor, positions: Rotary) -> torch.Tensor:
    return _rotary(x, positions.cosine, positions.sine, positions.num_heads, positions.gammas, positions.epsilon)


@_one_pass
def _rotary(
    x: torch.Tensor,
    cosine: torch.Tensor,
    sine: torch.Tensor,
    num_heads: int,
    gammas: torch.Tensor | None,
    epsilon: float,
) -> torch.Tensor:
    return reference.rotary(_wide(x), Rotary(cosine, sine, num_heads, gammas, epsilon)).to(x.dtype)


@_one_pass
def activation(x: torch.Tensor, kind: str, gated: bool = False) -> torch.Tensor:
    return reference.activation(_wide(x), kind, gated).to(x.dtype)


def drop(x: torch.Tensor, dropout: Dropout, seeds: torch.Tensor | None) -> torch.Tensor:
    return x if seeds is None or dropout.p == 0 else _dropped(x, dropout.p, dropout.site, seeds)


@_one_pass
def _dropped(x: torch.Tensor, p: float, site: int, seeds: torch.Tensor) -> torch.Tensor:
    return reference.drop(x, Dropout(p, site), seeds)


def cross_entropy(
    x: torch.Tensor, linear: Linear, labels: torch.Tensor, rows: TokenRows | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    return _CrossEntropy.apply(x, linear, labels, rows, None if rows is None else rows.values)


class _CrossEntropy(Function):
    """Some rows at a time, and their gradient with them: the loss is a sum, so it needs nothing of what comes after."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, linear: Linear, labels: torch.Tensor, trained: TokenRows | None, _: Any
    ) -> Any:
        d_values: Any = None if trained is None else torch.zeros_like(trained.values)
        softmax = (x.is_cuda and _liger()) or _softmax
        losses, hits, grads = [], [], []
        step = max(16, LOGITS_BYTES // (linear.out_features * x.element_size()))
        for rows, targets in zip(x.split(step), labels.split(step), strict=True):
            logits = torch.mm(rows, linear.forward_weight())
            if linear.bias is not None:
                logits += linear.bias.to(logits.dtype)
            if trained is not None:
                trained.add_to(logits, rows)
            loss, hit, d_logits = softmax(logits, targets)
            losses.append(loss)
            hits.append(hit)
            if any(ctx.needs_input_grad):
                grads.append(torch.mm(d_logits, linear.backward_weight()))
                if trained is not None:
                    of_x, of_values = trained.gradients(d_logits, rows)
                    grads[-1] += of_x
                    d_values += of_values
        ctx.save_for_backward(torch.cat(grads) if grads else None, d_values)
        num_correct = torch.stack(hits).sum()
        ctx.mark_non_differentiable(num_correct)
        return torch.stack(losses).sum(), num_correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: torch.Tensor, _: Any) -> Any:
        dx, d_values = ctx.saved_tensors
        return dx * d_loss.to(dx.dtype), None, None, None, None if d_values is None else d_values * d_loss


@_one_pass
def _softmax(logits: torch.Tensor, labels: torch.Tensor) -> Sequence[torch.Tensor]:
    """The summed loss, how many labels have the greatest logit, and the loss's gradient."""
    wide = _wide(logits)
    labelled = (labels != IGNORE_INDEX)[:, None]
    targets = labels.clamp(min=0)[:, None]
    log_sum = wide.logsumexp(1, keepdim=True)
    loss = torch.where(labelled, log_sum - wide.gather(1, targets), 0).sum()
    correct = (wide.argmax(1) == labels).sum()
    is_target = torch.arange(wide.shape[1], device=wide.device) == targets
    gradient = torch.where(labelled, (wide - log_sum).exp() - is_target.to(wide.dtype), 0)
    return loss, correct, gradient.to(logits.dtype)


@cache
def _liger() -> Callable[[torch.Tensor, torch.Tensor], Sequence[torch.Tensor]] | None:
    """The same in one kernel, in place, where the extra `liger` is installed."""
    if importlib.util.find_spec("liger_kernel") is None:
        return None
    from liger_kernel.transformers.functional import liger_cross_entropy

    def softmax(logits: torch.Tensor, labels: torch.Tensor) -> Sequence[torch.Tensor]:
        with torch.enable_grad():
            wide = _wide(logits.detach()).requires_grad_()  # it rounds the loss to their dtype
            found = liger_cross_entropy(
                wide, labels, ignore_index=IGNORE_INDEX, reduction="sum", return_predicted_tokens=True
            )
            (gradient,) = torch.autograd.grad(found.loss, wide)
        return found.loss.detach(), (found.predicted_tokens == labels).sum(), gradient.to(logits.dtype)

    return softmax
