"""The operations of reference.py on a CPU: large products by torch, the rest by the library of build.py; some by
narrow.py, where that is faster.

bf16 or float32 activations, contiguous in each row; everything inside is float32. The backward passes are written out:
frozen weights get no gradient, and a dropout mask is computed again, never kept.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from . import narrow
from .build import load_library
from .nouns import Dropout, Linear, Norm, Rotary, Sequences, TokenRows

_POINTER, _INT, _FLOAT, _DOUBLE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_double
_DROPOUT = (_POINTER, _INT, _DOUBLE)
_SHAPE = (_POINTER, _POINTER, *[_INT] * 5, _FLOAT)
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "lora_forward": (_POINTER, _INT, _POINTER, _POINTER, *[_INT] * 3, _POINTER, _INT, _POINTER),
    "lora_backward": (_POINTER, _INT, _POINTER, _INT, _POINTER, _INT, _INT, _POINTER, _INT, _POINTER),
    "drop": (_POINTER, _POINTER, _INT, _INT, *_DROPOUT),
    "activation": (_POINTER, _POINTER, *[_INT] * 4),
    "activation_backward": (_POINTER, _POINTER, _POINTER, *[_INT] * 4),
    "rotary": (_POINTER, _POINTER, _POINTER, _FLOAT, _POINTER, _POINTER, *[_INT] * 4, _POINTER),
    "cross_entropy": (*[_POINTER] * 4, *[_INT] * 3),
    "attention": (*[_POINTER, _INT] * 4, _POINTER, *_SHAPE, *_DROPOUT),
    "attention_backward": (*[_POINTER, _INT] * 4, _POINTER, *[_POINTER, _INT] * 3, *_SHAPE, *_DROPOUT),
    "add_norm": (*[_POINTER] * 4, _FLOAT, _INT, _INT, *[_POINTER] * 4, _INT, _INT, *_DROPOUT),
    "add_norm_backward": (*[_POINTER] * 5, _INT, _INT, _POINTER, _POINTER, _INT, _INT, *_DROPOUT),
}
_SUFFIX = {torch.bfloat16: "bf16", torch.float32: "f32"}
_KINDS = {"gelu": 0, "gelu_tanh": 1, "silu": 2, "relu": 3}


class _Calls:
    """The library's functions by name and type, found and declared once."""

    def __init__(self) -> None:
        self._functions: dict[tuple[str, str], Any] = {}

    def __call__(self, name: str, suffix: str, *arguments: Any) -> None:
        function = self._functions.get((name, suffix))
        if function is None:
            function = getattr(load_library(), f"{name}_{suffix}")
            function.argtypes, function.restype = _SIGNATURES[name], None
            self._functions[name, suffix] = function
        function(*arguments)


_call = _Calls()


def _dropout(dropout: Dropout, seeds: torch.Tensor | None) -> tuple[int | None, int, float]:
    return (None if seeds is None else seeds.data_ptr(), dropout.site, 0.0 if seeds is None else dropout.p)


def _pointer(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _rows(x: torch.Tensor) -> torch.Tensor:
    """Rows may lie apart (columns of a wider tensor), the values of a row not."""
    return x if x.stride(1) == 1 else x.contiguous()


def lora_linear(x: torch.Tensor, linear: Linear, seeds: torch.Tensor | None) -> torch.Tensor:
    drops = seeds is not None and any(part.dropout.p > 0 for part in linear.parts)
    if narrow.NARROW and x.dtype == torch.float32 and not drops:
        return narrow.lora_linear(x, linear)
    return _LoraLinear.apply(x, linear, seeds, *(tensor for part in linear.parts for tensor in part.matrices))


class _Part(ctypes.Structure):
    """`Part` in lora.cpp."""

    _fields_ = (
        *[(name, _POINTER) for name in ("A", "B", "h", "d_A", "d_B")],
        *[(name, _INT) for name in ("start", "width", "r", "site")],
        ("scaling", _DOUBLE),
        ("p", _DOUBLE),
    )


class _LoraLinear(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, linear: Linear, seeds: torch.Tensor | None, *trained: torch.Tensor) -> Any:
        x = _rows(x)
        y = torch.mm(x, linear.forward_weight())
        reduced = torch.empty(x.shape[0] * sum(lora_A.shape[0] for lora_A in trained[::2]))
        parts = _table(linear, trained, reduced, x.shape[0], [None] * len(trained))
        _call(
            "lora_forward", _SUFFIX[x.dtype], x.data_ptr(), x.stride(0), y.data_ptr(), _pointer(linear.bias),
            *x.shape, y.shape[1], parts, len(linear.parts), _pointer(seeds),
        )  # fmt: skip
        ctx.linear, ctx.seeds = linear, seeds
        ctx.save_for_backward(x, reduced, *trained)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> Any:
        linear: Linear = ctx.linear
        x, reduced, *trained = ctx.saved_tensors
        dy = _rows(dy)
        needs = ctx.needs_input_grad
        dx = torch.mm(dy, linear.backward_weight()) if needs[0] else None
        grads = [torch.empty_like(one) if wanted else None for one, wanted in zip(trained, needs[3:], strict=True)]
        parts = _table(linear, trained, reduced, x.shape[0], grads)
        _call(
            "lora_backward", _SUFFIX[x.dtype], x.data_ptr(), x.stride(0), dy.data_ptr(), dy.stride(0), _pointer(dx),
            *x.shape, parts, len(linear.parts), _pointer(ctx.seeds),
        )  # fmt: skip
        return dx, None, None, *grads


def _table(
    linear: Linear,
    trained: Sequence[torch.Tensor],
    reduced: torch.Tensor,
    num_rows: int,
    grads: Sequence[torch.Tensor | None],
) -> Any:
    """trained, grads: A and B of each part in turn. reduced: dropout(x) A^T of each part, one behind the other."""
    parts, h = (_Part * len(linear.parts))(), reduced.data_ptr()
    for index, part in enumerate(linear.parts):
        lora_A, lora_B = trained[2 * index : 2 * index + 2]
        r = lora_A.shape[0]
        parts[index] = _Part(
            lora_A.data_ptr(), lora_B.data_ptr(), h, _pointer(grads[2 * index]), _pointer(grads[2 * index + 1]),
            part.start, lora_B.shape[0], r, part.dropout.site, part.scaling, part.dropout.p,
        )  # fmt: skip
        h += num_rows * r * reduced.element_size()
    return parts


def attention(
    q: torch.Tensor, kv: torch.Tensor | None, sequences: Sequences, dropout: Dropout, seeds: torch.Tensor | None
) -> torch.Tensor:
    drops = seeds is not None and dropout.p > 0
    if narrow.NARROW and q.dtype == torch.float32 and not drops and sequences.longest >= narrow.LONG:
        return narrow.attention(q, kv, sequences)
    return _Attention.apply(q, kv, sequences, dropout, seeds)


class _Attention(Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        kv: torch.Tensor | None,
        sequences: Sequences,
        dropout: Dropout,
        seeds: torch.Tensor | None,
    ) -> Any:
        num_queries = q.shape[0]
        out = torch.zeros(num_queries, sequences.num_heads * sequences.head_width, dtype=q.dtype)
        lse = torch.empty(num_queries, sequences.num_heads)
        _call(
            "attention", _SUFFIX[q.dtype], *_strided(*sequences.split(q, kv), out), lse.data_ptr(),
            *_shape(sequences), *_dropout(dropout, seeds),
        )  # fmt: skip
        ctx.sequences, ctx.dropout, ctx.seeds = sequences, dropout, seeds
        ctx.save_for_backward(q, kv, lse)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: torch.Tensor) -> Any:
        q, kv, lse = ctx.saved_tensors
        sequences: Sequences = ctx.sequences
        d_out = _rows(d_out)
        d_q = torch.zeros_like(q)  # rows of no sequence stay zero
        d_kv = None if kv is None else torch.zeros_like(kv)
        _call(
            "attention_backward", _SUFFIX[q.dtype], *_strided(d_out, *sequences.split(q, kv)), lse.data_ptr(),
            *_strided(*sequences.split(d_q, d_kv)), *_shape(sequences), *_dropout(ctx.dropout, ctx.seeds),
        )  # fmt: skip
        return d_q, d_kv, None, None, None


def _shape(sequences: Sequences) -> tuple[Any, ...]:
    return (
        sequences.query_starts.data_ptr(), sequences.starts.data_ptr(), len(sequences.starts) - 1,
        sequences.num_heads, sequences.num_kv_heads, sequences.head_width, int(sequences.causal), sequences.scale,
    )  # fmt: skip


def _strided(*tensors: torch.Tensor) -> list[int]:
    return [value for tensor in tensors for value in (tensor.data_ptr(), tensor.stride(0))]


def add_norm(
    residual: torch.Tensor,
    y: torch.Tensor | None,
    norm: Norm,
    dropout: Dropout,
    seeds: torch.Tensor | None,
    dtype: torch.dtype,
    post: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    return _AddNorm.apply(residual, y, norm, dropout, seeds, dtype, post)


class _AddNorm(Function):
    @staticmethod
    def forward(
        ctx: Any,
        residual: torch.Tensor,
        y: torch.Tensor | None,
        norm: Norm,
        dropout: Dropout,
        seeds: torch.Tensor | None,
        dtype: torch.dtype,
        post: bool,
    ) -> Any:
        ctx.set_materialize_grads(False)
        residual = residual.contiguous()
        y = None if y is None else y.contiguous()
        stream = torch.empty_like(residual)
        out, normed = (torch.empty(residual.shape, dtype=dtype) for _ in range(2))
        rstd = torch.empty(residual.shape[0])
        _call(
            "add_norm", _SUFFIX[dtype], residual.data_ptr(), _pointer(y), norm.weight.data_ptr(), _pointer(norm.bias),
            norm.epsilon, int(norm.rms), int(post), stream.data_ptr(), out.data_ptr(), normed.data_ptr(),
            rstd.data_ptr(), *residual.shape, *_dropout(dropout, seeds),
        )  # fmt: skip
        ctx.norm, ctx.dropout, ctx.seeds, ctx.post = norm, dropout, seeds, post
        ctx.save_for_backward(normed, rstd)
        return stream, out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_stream: torch.Tensor | None, d_out: torch.Tensor | None) -> Any:
        normed, rstd = ctx.saved_tensors
        assert d_out is not None, "a norm whose output nobody reads"
        d_out = d_out.contiguous()
        d_stream = None if d_stream is None else d_stream.contiguous()
        d_residual = torch.empty(normed.shape)
        d_y = torch.empty_like(normed) if ctx.needs_input_grad[1] else None
        _call(
            "add_norm_backward", _SUFFIX[normed.dtype], d_out.data_ptr(), _pointer(d_stream), normed.data_ptr(),
            rstd.data_ptr(), ctx.norm.weight.data_ptr(), int(ctx.norm.rms), int(ctx.post), d_residual.data_ptr(),
            _pointer(d_y), *normed.shape, *_dropout(ctx.dropout, ctx.seeds),
        )  # fmt: skip
        return d_residual, d_y, None, None, None, None, None


def activation(x: torch.Tensor, kind: str, gated: bool = False) -> torch.Tensor:
    return _Activation.apply(x, kind, gated)


class _Activation(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, kind: str, gated: bool) -> Any:
        x = x.contiguous()
        num_rows, width = x.shape[0], x.shape[1] // (2 if gated else 1)
        out = torch.empty(num_rows, width, dtype=x.dtype)
        ctx.settings = (num_rows, width, int(gated), _KINDS[kind])
        _call("activation", _SUFFIX[x.dtype], x.data_ptr(), out.data_ptr(), *ctx.settings)
        ctx.save_for_backward(x)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        d_out, d_x = d_out.contiguous(), torch.empty_like(x)
        _call(
            "activation_backward", _SUFFIX[x.dtype], d_out.data_ptr(), x.data_ptr(), d_x.data_ptr(), *ctx.settings
        )  # fmt: skip
        return d_x, None, None


def rotary(x: torch.Tensor, positions: Rotary) -> torch.Tensor:
    return _Rotary.apply(x, positions)


class _Rotary(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, positions: Rotary) -> Any:
        x = x.contiguous()
        ctx.positions = positions
        ctx.save_for_backward(x)
        return _turned(x, positions, None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return _turned(x, ctx.positions, d_out.contiguous()), None


def _turned(x: torch.Tensor, positions: Rotary, d_out: torch.Tensor | None) -> torch.Tensor:
    """The turned rows, or their gradient where `d_out` is given."""
    out = torch.empty_like(x)
    num_rows, width = positions.cosine.shape
    assert width <= 512, "turn() in decoder.cpp keeps a head on its stack"
    _call(
        "rotary", _SUFFIX[x.dtype], x.data_ptr(), out.data_ptr(), _pointer(positions.gammas), positions.epsilon,
        positions.cosine.data_ptr(), positions.sine.data_ptr(), num_rows, positions.num_heads, width,
        x.shape[1] - positions.num_heads * width, _pointer(d_out),
    )  # fmt: skip
    return out


LOGITS_BYTES = 2**26
"""Of the logits that are held at a time: the products of fewer rows are slower, those of more no faster."""


def cross_entropy(
    x: torch.Tensor, linear: Linear, labels: torch.Tensor, rows: TokenRows | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    return _CrossEntropy.apply(x, linear, labels, rows, None if rows is None else rows.values)


class _CrossEntropy(Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, linear: Linear, labels: torch.Tensor, trained: TokenRows | None, _: Any
    ) -> Any:
        x, labels = _rows(x), labels.contiguous()
        num_rows, needs_grad = x.shape[0], any(ctx.needs_input_grad)
        losses, hits = torch.empty(num_rows), torch.empty(num_rows)
        d_x = torch.empty_like(x) if needs_grad else None
        d_values: Any = None if trained is None else torch.zeros_like(trained.values)
        step = max(16, LOGITS_BYTES // (linear.out_features * x.element_size()) // 16 * 16)
        for start in range(0, num_rows, step):
            rows = slice(start, min(start + step, num_rows))
            logits = torch.mm(x[rows], linear.forward_weight())
            if linear.bias is not None:
                logits += linear.bias
            if trained is not None:
                trained.add_to(logits, x[rows])
            _call(
                "cross_entropy", _SUFFIX[x.dtype], logits.data_ptr(), labels[rows].data_ptr(),
                losses[rows].data_ptr(), hits[rows].data_ptr(), *logits.shape, int(needs_grad),
            )  # fmt: skip
            if d_x is not None:  # the loss is a sum: its gradient needs nothing of what comes after
                torch.mm(logits, linear.backward_weight(), out=d_x[rows])
                if trained is not None:
                    of_x, of_values = trained.gradients(logits, x[rows])
                    d_x[rows] += of_x
                    d_values += of_values
        ctx.save_for_backward(d_x, d_values)
        num_correct = hits.sum()
        ctx.mark_non_differentiable(num_correct)
        return losses.sum(), num_correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: torch.Tensor, _: Any) -> Any:
        d_x, d_values = ctx.saved_tensors
        return d_x * d_loss, None, None, None, None if d_values is None else d_values * d_loss


def drop(x: torch.Tensor, dropout: Dropout, seeds: torch.Tensor | None) -> torch.Tensor:
    return x if seeds is None or dropout.p == 0 else _Drop.apply(x, dropout, seeds)


class _Drop(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dropout: Dropout, seeds: torch.Tensor) -> Any:
        ctx.dropout, ctx.seeds = dropout, seeds
        return _dropped(x, dropout, seeds)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: torch.Tensor) -> Any:
        return _dropped(d_out, ctx.dropout, ctx.seeds), None, None


def _dropped(x: torch.Tensor, dropout: Dropout, seeds: torch.Tensor) -> torch.Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    _call("drop", _SUFFIX[x.dtype], x.data_ptr(), out.data_ptr(), *x.shape, *_dropout(dropout, seeds))
    return out
