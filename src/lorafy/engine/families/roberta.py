"""RoBERTa: Liu et al. 2019. BERT's layers; positions begin behind the padding token's number, the head differs."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch.nn import functional

from ...objectives import TEXTS
from ..encoder import Encoder
from ..weights import Reader
from .bert import read_encoder

READS = TEXTS


def read(model: Any, reader: Reader) -> Encoder:
    """model: RobertaForSequenceClassification, peft's adapters inside."""
    parts = model.classifier
    dropouts = reader.dropout(parts.dropout), reader.dropout(parts.dropout)
    dense, out = reader.head(parts, "dense"), reader.head(parts, "out_proj")

    def head(ops: ModuleType, x: torch.Tensor, seeds: torch.Tensor | None) -> torch.Tensor:
        x = functional.linear(ops.drop(x, dropouts[0], seeds).float(), dense.weight, dense.bias).tanh()
        return functional.linear(ops.drop(x, dropouts[1], seeds), out.weight, out.bias)

    return read_encoder(model.roberta, model.config, reader, head, padding_id=model.config.pad_token_id)
