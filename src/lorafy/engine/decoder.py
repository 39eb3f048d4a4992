"""Decoders that norm before each branch (GPT-2, OPT, Llama, Qwen): the loss of the tokens that follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch.nn import functional

from ..kernels.nouns import NO_DROPOUT, Dropout, Linear, Norm, Rotary, Sequences, TokenRows
from ..objectives.tokens import TokenCrossEntropy
from ..types import Batch, LossOutput
from .recompute import again, once
from .tower import Tower

Angles = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Positions (M,) or (3, M) -> cosine and sine, both (M, head_width), float32."""


@dataclass(frozen=True)
class Layer:
    """qkv: queries, keys and values side by side; in the last layer `q` and `kv` apart, as its queries are fewer.

    gammas: (heads + kv_heads, head_width), where each head of queries and keys is RMS-normed.
    """

    first_norm: Norm
    qkv: Linear | None
    q: Linear | None
    kv: Linear | None
    gammas: torch.Tensor | None
    epsilon: float
    out: Linear
    second_norm: Norm
    up: Linear
    down: Linear
    scale: float
    attention_dropout: Dropout
    out_dropout: Dropout
    down_dropout: Dropout


@dataclass(frozen=True)
class Decoder:
    """The residual stream is float32, as under autocast. Only targets' losses are asked for, so the last layer computes
    its queries from each sequence's first target on, and the language head the targets alone."""

    words: torch.Tensor
    word_rows: TokenRows | None
    positions: torch.Tensor | None
    first_position: int
    embedding_dropout: Dropout
    layers: Sequence[Layer]
    angles: Angles | None
    num_heads: int
    num_kv_heads: int
    head_width: int
    activation: str
    gated: bool
    last_norm: Norm
    head: Linear
    head_rows: TokenRows | None
    dtype: torch.dtype
    tower: Tower | None = None

    def loss(self, ops: ModuleType, batch: Batch, objective: TokenCrossEntropy, recompute: bool = False) -> LossOutput:
        """The SUM over targets: `objective` is computed with the output layer, the logits are never kept. batch: as of
        `packed.pack_sequences`; without seeds nothing is dropped."""
        inputs, run = batch.inputs, again if recompute else once
        starts, seeds, rows = inputs["starts"], inputs.get("seeds"), inputs["query_rows"]
        with torch.no_grad():
            stream = functional.embedding(inputs["input_ids"], self.words).float()
            if self.positions is not None:
                places = inputs["position_ids"] + self.first_position
                stream = stream + functional.embedding(places, self.positions)
        if self.word_rows is not None:
            shown = inputs["input_ids"][:, None] == self.word_rows.tokens
            stream = stream + shown.to(stream.dtype) @ self.word_rows.change
        stream = ops.drop(stream, self.embedding_dropout, seeds)
        features: Sequence[torch.Tensor] = ()
        if batch.pictures:
            assert self.tower is not None, "only a model that sees is shown pictures"
            first, *features = self.tower(batch.pictures).float()
            stream = stream.index_copy(0, inputs["picture_rows"], first)
        angles = None if self.angles is None else self.angles(inputs["position_ids"])
        y, dropout = None, NO_DROPOUT
        for index, layer in enumerate(self.layers[:-1]):
            sequences = self._sequences(starts, starts, layer.scale, batch.longest)
            stream, y = run(self._layer, ops, layer, stream, y, dropout, sequences, seeds, angles)
            dropout = layer.down_dropout
            if index < len(features):
                stream = stream.index_add(0, inputs["picture_rows"], features[index])
        last = self.layers[-1]
        assert last.q is not None and last.kv is not None
        stream, x = ops.add_norm(stream, y, last.first_norm, dropout, seeds, self.dtype)
        query_seeds = None if seeds is None else seeds[rows]
        row_angles = None if angles is None else (angles[0][rows], angles[1][rows])
        q = ops.lora_linear(x.index_select(0, rows), last.q, query_seeds)
        q = self._turn(ops, q, last, row_angles, 0, self.num_heads)
        kv = ops.lora_linear(x, last.kv, seeds)
        kv = self._turn(ops, kv, last, angles, self.num_heads, self.num_kv_heads)
        sequences = self._sequences(starts, inputs["query_starts"], last.scale, batch.longest)
        context = ops.attention(q, kv, sequences, last.attention_dropout, query_seeds)
        stream, y = self._rest(ops, last, stream.index_select(0, rows), context, query_seeds)
        _, x = ops.add_norm(stream, y, self.last_norm, last.down_dropout, query_seeds, self.dtype)
        x = x.index_select(0, inputs["target_rows"])
        return LossOutput(*ops.cross_entropy(x, self.head, batch.labels, self.head_rows))

    def _layer(
        self,
        ops: ModuleType,
        layer: Layer,
        stream: torch.Tensor,
        y: torch.Tensor | None,
        dropout: Dropout,
        sequences: Sequences,
        seeds: torch.Tensor | None,
        angles: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """y, dropout: of the layer before, still to be added to the stream. The stream, and this layer's y."""
        assert layer.qkv is not None
        stream, x = ops.add_norm(stream, y, layer.first_norm, dropout, seeds, self.dtype)
        qkv = ops.lora_linear(x, layer.qkv, seeds)
        qkv = self._turn(ops, qkv, layer, angles, 0, self.num_heads + self.num_kv_heads)
        context = ops.attention(qkv, None, sequences, layer.attention_dropout, seeds)
        return self._rest(ops, layer, stream, context, seeds)

    def _rest(
        self, ops: ModuleType, layer: Layer, stream: torch.Tensor, context: torch.Tensor, seeds: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The stream, and what the layer's second branch adds to it."""
        y = ops.lora_linear(context, layer.out, seeds)
        stream, x = ops.add_norm(stream, y, layer.second_norm, layer.out_dropout, seeds, self.dtype)
        inner = ops.activation(ops.lora_linear(x, layer.up, seeds), self.activation, self.gated)
        return stream, ops.lora_linear(inner, layer.down, seeds)

    def _turn(
        self,
        ops: ModuleType,
        x: torch.Tensor,
        layer: Layer,
        angles: tuple[torch.Tensor, torch.Tensor] | None,
        first_head: int,
        num_heads: int,
    ) -> torch.Tensor:
        """first_head: counted over queries, then keys."""
        if angles is None:
            return x
        gammas = None if layer.gammas is None else layer.gammas[first_head : first_head + num_heads]
        return ops.rotary(x, Rotary(*angles, num_heads, gammas, layer.epsilon))

    def _sequences(self, starts: torch.Tensor, query_starts: torch.Tensor, scale: float, longest: int) -> Sequences:
        heads, kv_heads = self.num_heads, self.num_kv_heads
        return Sequences(starts, query_starts, heads, kv_heads, self.head_width, scale, True, longest)
