"""Qwen3, whose heads are normed: Yang et al. 2025."""

from ..llama_like import read

TASK = "causal_lm"

__all__ = ["TASK", "read"]
