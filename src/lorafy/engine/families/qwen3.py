"""Qwen3, whose heads are normed: Yang et al. 2025."""

from __future__ import annotations

from typing import Any

from ...objectives import TOKENS
from ..decoder import Decoder
from ..llama_like import read_decoder
from ..weights import Reader

READS = TOKENS


def read(model: Any, reader: Reader) -> Decoder:
    """model: Qwen3ForCausalLM, peft's adapters inside."""
    full = set(model.config.layer_types) == {"full_attention"}
    return read_decoder(model.model, model.config, model.lm_head, reader, attends_to_all=full, norms_heads=True)
