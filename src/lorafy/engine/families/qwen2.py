"""Qwen2: Yang et al. 2024."""

from ...objectives import TOKENS
from ..llama_like import read

READS = TOKENS

__all__ = ["READS", "read"]
