"""Qwen3, whose heads are normed: Yang et al. 2025."""

from ...objectives import TOKENS
from ..llama_like import read

READS = TOKENS

__all__ = ["READS", "read"]
