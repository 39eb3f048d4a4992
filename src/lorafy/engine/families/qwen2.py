"""Qwen2: Yang et al. 2024."""

from ..llama_like import read

TASK = "causal_lm"

__all__ = ["TASK", "read"]
