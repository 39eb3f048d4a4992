"""DistilBERT: Sanh et al. 2019."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch.nn import functional

from ...objectives import TEXTS
from ..encoder import Embeddings, Encoder, Layer
from ..weights import Reader, activation_name

READS = TEXTS


def read(model: Any, reader: Reader) -> Encoder:
    """model: DistilBertForSequenceClassification, peft's adapters inside."""
    distilbert, config = model.distilbert, model.config
    tables = distilbert.embeddings
    embeddings = Embeddings(
        tables.word_embeddings.weight.detach(),
        tables.position_embeddings.weight.detach(),
        None,
        reader.norm(tables.LayerNorm),
        reader.dropout(tables.dropout),
    )
    last = len(distilbert.transformer.layer) - 1
    layers = []
    for index, block in enumerate(distilbert.transformer.layer):
        attention = block.attention
        layers.append(
            Layer(
                **reader.projections(attention.q_lin, attention.k_lin, attention.v_lin, apart=index == last),
                out=reader.linear(attention.out_lin),
                first_norm=reader.norm(block.sa_layer_norm),
                up=reader.linear(block.ffn.lin1),
                down=reader.linear(block.ffn.lin2),
                second_norm=reader.norm(block.output_layer_norm),
                attention_dropout=reader.dropout(attention.dropout),
                out_dropout=reader.dropout(0.0),
                down_dropout=reader.dropout(block.ffn.dropout),
            )
        )
    pre_classifier, classifier = reader.head(model.pre_classifier), reader.head(model.classifier)
    dropout = reader.dropout(model.dropout)

    def head(ops: ModuleType, x: torch.Tensor, seeds: torch.Tensor | None) -> torch.Tensor:
        x = functional.linear(x.float(), pre_classifier.weight, pre_classifier.bias)
        return functional.linear(ops.drop(x.relu(), dropout, seeds), classifier.weight, classifier.bias)

    return Encoder(
        embeddings,
        layers,
        config.n_heads,
        config.dim // config.n_heads,
        activation_name(config.activation),
        head,
        reader.dtype,
    )
