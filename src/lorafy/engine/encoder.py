"""Encoders that norm after each residual (BERT, DistilBERT): the states of each sequence's first token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch.nn import functional

from ..contracts import TextObjective
from ..kernels.nouns import NO_DROPOUT, Dropout, Linear, Norm, Sequences
from ..types import Batch, LossOutput
from .recompute import again, once

Head = Callable[[ModuleType, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""(operations, first tokens' states (B, H), those rows' dropout seeds) -> logits (B, C), float32."""


@dataclass(frozen=True)
class Embeddings:
    """Frozen tables of words, positions and, maybe, token types; their sum is normed, then dropped: (M, H), float32.

    padding_id: where given, positions count from behind it, and tokens of this id are not counted (RoBERTa).
    """

    words: torch.Tensor
    positions: torch.Tensor
    types: torch.Tensor | None
    norm: Norm
    dropout: Dropout
    padding_id: int | None = None

    def __call__(self, ops: ModuleType, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        total = functional.embedding(inputs["input_ids"], self.words)
        total = total + functional.embedding(self._places(inputs), self.positions)
        if self.types is not None:
            kinds = inputs.get("token_type_ids")
            total = total + (self.types[0] if kinds is None else functional.embedding(kinds, self.types))
        _, x = ops.add_norm(total.float(), None, self.norm, NO_DROPOUT, None, torch.float32)
        return ops.drop(x, self.dropout, inputs.get("seeds"))

    def _places(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        places = inputs["position_ids"]
        if self.padding_id is None:
            return places
        counts = (inputs["input_ids"] != self.padding_id).long()
        so_far = counts.cumsum(0)
        first = torch.arange(len(places), device=places.device) - places  # the first row of each token's sequence
        return (so_far - (so_far - counts)[first]) * counts + self.padding_id


@dataclass(frozen=True)
class Layer:
    """qkv: queries, keys and values side by side; in the last layer `q` and `kv` apart, as its queries are fewer."""

    qkv: Linear | None
    q: Linear | None
    kv: Linear | None
    out: Linear
    first_norm: Norm
    up: Linear
    down: Linear
    second_norm: Norm
    attention_dropout: Dropout
    out_dropout: Dropout
    down_dropout: Dropout


@dataclass(frozen=True)
class Encoder:
    """The residual stream is float32, as under autocast. Only the first token's state is read at the end, so the last
    layer computes it alone: exact, and an eighth of the products of six layers less."""

    embeddings: Embeddings
    layers: Sequence[Layer]
    num_heads: int
    head_width: int
    activation: str
    head: Head
    dtype: torch.dtype

    def loss(self, ops: ModuleType, batch: Batch, objective: TextObjective, recompute: bool = False) -> LossOutput:
        """The objective's SUM over texts. batch: as of `packed.pack_texts`."""
        return objective.of_outputs(self.logits(ops, batch, recompute), batch.labels)

    def logits(self, ops: ModuleType, batch: Batch, recompute: bool = False) -> torch.Tensor:
        """(B, C), float32. batch: as of `packed.pack_texts`; without seeds nothing is dropped."""
        inputs = batch.inputs
        starts, seeds = inputs["starts"], inputs.get("seeds")
        run = again if recompute else once
        with torch.no_grad():
            stream = self.embeddings(ops, inputs)
            x = stream.to(self.dtype)
        for layer in self.layers[:-1]:
            stream, x = run(self._layer, ops, layer, stream, x, self._sequences(starts, starts, batch.longest), seeds)
        last = self.layers[-1]
        assert last.q is not None and last.kv is not None
        first = starts[:-1].long()
        first_seeds = None if seeds is None else seeds[first]
        context = ops.attention(
            ops.lora_linear(x.index_select(0, first), last.q, first_seeds),
            ops.lora_linear(x, last.kv, seeds),
            self._sequences(starts, torch.arange(len(starts), dtype=starts.dtype, device=starts.device), batch.longest),
            last.attention_dropout,
            first_seeds,
        )
        _, x = self._rest(ops, last, stream.index_select(0, first), context, first_seeds)
        return self.head(ops, x, first_seeds)

    def _layer(
        self,
        ops: ModuleType,
        layer: Layer,
        stream: torch.Tensor,
        x: torch.Tensor,
        sequences: Sequences,
        seeds: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x: the stream in the products' dtype."""
        assert layer.qkv is not None
        qkv = ops.lora_linear(x, layer.qkv, seeds)
        context = ops.attention(qkv, None, sequences, layer.attention_dropout, seeds)
        return self._rest(ops, layer, stream, context, seeds)

    def _rest(
        self, ops: ModuleType, layer: Layer, stream: torch.Tensor, context: torch.Tensor, seeds: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        y = ops.lora_linear(context, layer.out, seeds)
        stream, x = ops.add_norm(stream, y, layer.first_norm, layer.out_dropout, seeds, self.dtype, post=True)
        inner = ops.activation(ops.lora_linear(x, layer.up, seeds), self.activation)
        y = ops.lora_linear(inner, layer.down, seeds)
        return ops.add_norm(stream, y, layer.second_norm, layer.down_dropout, seeds, self.dtype, post=True)

    def _sequences(self, starts: torch.Tensor, query_starts: torch.Tensor, longest: int) -> Sequences:
        width = self.head_width
        return Sequences(starts, query_starts, self.num_heads, self.num_heads, width, width**-0.5, False, longest)
