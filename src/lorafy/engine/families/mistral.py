"""Mistral: Jiang et al. 2023."""

from ..llama_like import read

TASK = "causal_lm"

__all__ = ["TASK", "read"]
