"""Llama: Touvron et al. 2023."""

from ...objectives import TOKENS
from ..llama_like import read

READS = TOKENS

__all__ = ["READS", "read"]
