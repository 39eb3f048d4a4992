"""BERT and what shares its code (MiniLM): Devlin et al. 2018."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch.nn import functional

from ...objectives import TEXTS
from ..encoder import Embeddings, Encoder, Head, Layer
from ..weights import Reader, Unsupported, activation_name, base_of

READS = TEXTS


def read(model: Any, reader: Reader) -> Encoder:
    """model: BertForSequenceClassification, peft's adapters inside."""
    pooler = model.bert.pooler.dense
    is_new = any(parameter.requires_grad for parameter in base_of(pooler).parameters())
    new_pooler = reader.head(pooler) if is_new else None
    old_pooler = None if is_new else reader.linear(pooler)
    dropout, classifier = reader.dropout(model.dropout), reader.head(model.classifier)

    def head(ops: ModuleType, x: torch.Tensor, seeds: torch.Tensor | None) -> torch.Tensor:
        if new_pooler is not None:
            x = functional.linear(x.float(), new_pooler.weight, new_pooler.bias)
        else:
            x = ops.lora_linear(x, old_pooler, seeds).float()
        x = ops.drop(x.tanh(), dropout, seeds)
        return functional.linear(x, classifier.weight, classifier.bias)

    return read_encoder(model.bert, model.config, reader, head)


def read_encoder(bert: Any, config: Any, reader: Reader, head: Head, padding_id: int | None = None) -> Encoder:
    """What is below the head."""
    if config.is_decoder or config.add_cross_attention:
        raise Unsupported("an encoder that is made a decoder")
    tables = bert.embeddings
    embeddings = Embeddings(
        tables.word_embeddings.weight.detach(),
        tables.position_embeddings.weight.detach(),
        tables.token_type_embeddings.weight.detach(),
        reader.norm(tables.LayerNorm),
        reader.dropout(tables.dropout),
        padding_id,
    )
    last = len(bert.encoder.layer) - 1
    layers = []
    for index, block in enumerate(bert.encoder.layer):
        attention, output = block.attention.self, block.attention.output
        layers.append(
            Layer(
                **reader.projections(attention.query, attention.key, attention.value, apart=index == last),
                out=reader.linear(output.dense),
                first_norm=reader.norm(output.LayerNorm),
                up=reader.linear(block.intermediate.dense),
                down=reader.linear(block.output.dense),
                second_norm=reader.norm(block.output.LayerNorm),
                attention_dropout=reader.dropout(attention.dropout),
                out_dropout=reader.dropout(output.dropout),
                down_dropout=reader.dropout(block.output.dropout),
            )
        )
    return Encoder(
        embeddings,
        layers,
        config.num_attention_heads,
        config.hidden_size // config.num_attention_heads,
        activation_name(config.hidden_act),
        head,
        reader.dtype,
    )
