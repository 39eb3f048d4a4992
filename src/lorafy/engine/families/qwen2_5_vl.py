"""Qwen2.5-VL: Bai et al. 2025."""

from __future__ import annotations

from typing import Any

from ...objectives import TOKENS
from ..decoder import Decoder
from ..seeing import read_seeing
from ..weights import Reader

READS = TOKENS


def read(model: Any, reader: Reader) -> Decoder:
    """model: Qwen2_5_VLForConditionalGeneration, peft's adapters inside."""
    return read_seeing(model, reader, seen=lambda output: [output.pooler_output], num_added=0, norms_heads=False)
