"""Mistral: Jiang et al. 2023."""

from __future__ import annotations

from typing import Any

from ...objectives import TOKENS
from ..decoder import Decoder
from ..llama_like import read_decoder
from ..weights import Reader

READS = TOKENS


def read(model: Any, reader: Reader) -> Decoder:
    """model: MistralForCausalLM, peft's adapters inside."""
    return read_decoder(
        model.model,
        model.config,
        model.lm_head,
        reader,
        attends_to_all=model.config.sliding_window is None,
        norms_heads=False,
    )
