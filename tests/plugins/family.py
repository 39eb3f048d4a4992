"""A model family that the fast path does not know: a GPT-2 whose `model_type` is another."""

from lorafy.engine.families.gpt2 import READS, read

__all__ = ["READS", "read"]
