"""What the operations work on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

SITES = 1_024
"""Distance of two sites: an attention draws a mask for each head at site + head."""


@dataclass(frozen=True)
class Dropout:
    """`site` tells one dropout of the model from the others: a multiple of SITES."""

    p: float
    site: int


NO_DROPOUT = Dropout(0.0, 0)


@dataclass(frozen=True)
class LoraPart:
    """An adapter on the columns `start` and following of a linear layer's output.

    lora_A (r, in) and lora_B (width, r) are the trained parameters, float32. `rows`: the first and behind the last row
    of lora_B that are used, where the layer is part of the one that was adapted.
    """

    lora_A: torch.Tensor
    lora_B: torch.Tensor
    scaling: float
    dropout: Dropout
    start: int = 0
    rows: tuple[int, int] | None = None

    @property
    def matrices(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A (r, in) and B (width, r)."""
        return self.lora_A, self.lora_B if self.rows is None else self.lora_B[slice(*self.rows)]


@dataclass(frozen=True)
class PackedWeight:
    """The weight (out, in) of quantised layers (quantised.py) that read the same input, their outputs side by side:
    given back in `dtype` for each product, and not kept. rows: the first and behind the last that are meant."""

    layers: Sequence[Any]
    dtype: torch.dtype
    rows: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows[1] - self.rows[0], self.layers[0].in_features

    def whole(self) -> torch.Tensor:
        """De-quantised."""
        weights = [layer.weight_in(self.dtype) for layer in self.layers]
        return (weights[0] if len(weights) == 1 else torch.cat(weights))[slice(*self.rows)]

    def part(self, start: int, end: int) -> PackedWeight:
        """Some of the rows."""
        return replace(self, rows=(self.rows[0] + start, self.rows[0] + end))


@dataclass(frozen=True)
class Linear:
    """A frozen linear layer (or several that read the same input, their outputs side by side) with its adapters.

    weight: (out, in), or (in, out) where `in_first`, as GPT-2 keeps it. bias: (out,), float32, or None.
    """

    weight: torch.Tensor | PackedWeight
    bias: torch.Tensor | None
    parts: Sequence[LoraPart]
    in_first: bool = False

    @property
    def out_features(self) -> int:
        return self.weight.shape[1 if self.in_first else 0]

    def forward_weight(self) -> torch.Tensor:
        """(in, out)"""
        return self._whole() if self.in_first else self._whole().t()

    def backward_weight(self) -> torch.Tensor:
        """(out, in)"""
        return self._whole().t() if self.in_first else self._whole()

    def _whole(self) -> torch.Tensor:
        return self.weight.whole() if isinstance(self.weight, PackedWeight) else self.weight


@dataclass(frozen=True)
class TokenRows:
    """Some rows of a table of tokens that are trained: values (k, H), float32. The table holds them as they were.

    tokens: (k,), each once. start: (k, H), the table's, float32.
    """

    tokens: torch.Tensor
    values: torch.Tensor
    start: torch.Tensor

    @property
    def change(self) -> torch.Tensor:
        """(k, H)"""
        return self.values - self.start

    def add_to(self, logits: torch.Tensor, x: torch.Tensor) -> None:
        """Adds to the logits (N, V) of x (N, H), in place, what the change of these rows adds."""
        change = self.change
        logits[:, self.tokens] += torch.mm(x.to(change.dtype), change.T).to(logits.dtype)

    def gradients(self, d_logits: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The gradients of `add_to`: of x (N, H), to be added to the table's own, and of the values (k, H)."""
        change = self.change
        d_rows = d_logits[:, self.tokens].to(change.dtype)
        return torch.mm(d_rows, change).to(x.dtype), torch.mm(d_rows.T, x.to(change.dtype))


@dataclass(frozen=True)
class Norm:
    """A layer norm, or an RMS norm (no mean, no bias). Frozen, float32."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    epsilon: float
    rms: bool = False


@dataclass(frozen=True)
class Rotary:
    """Rotary positions (Su et al. 2021) on the first `num_heads` heads of each row, their halves turned by the angles.

    cosine, sine: (M, head_width), float32. gammas: (num_heads, head_width) where each head is RMS-normed first (Qwen3).
    """

    cosine: torch.Tensor
    sine: torch.Tensor
    num_heads: int
    gammas: torch.Tensor | None
    epsilon: float


@dataclass(frozen=True)
class Sequences:
    """Where the sequences of a batch lie: sequence b has the key rows starts[b] to starts[b + 1] and the query rows
    query_starts[b] to query_starts[b + 1]; where it has fewer queries than keys and is causal, they are its last.

    Both (B + 1,) int32. longest: of the key rows of a sequence.
    """

    starts: torch.Tensor
    query_starts: torch.Tensor
    num_heads: int
    num_kv_heads: int
    head_width: int
    scale: float
    causal: bool
    longest: int

    def split(self, q: torch.Tensor, kv: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Views of q, k and v: q holds all three side by side, or kv holds k and v."""
        queries, keys = self.num_heads * self.head_width, self.num_kv_heads * self.head_width
        if kv is None:
            return q[:, :queries], q[:, queries : queries + keys], q[:, queries + keys :]
        return q, kv[:, :keys], kv[:, keys:]
