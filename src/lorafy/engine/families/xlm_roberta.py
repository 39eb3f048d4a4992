"""XLM-RoBERTa, RoBERTa in a hundred languages: Conneau et al. 2019."""

from .roberta import TASK, read

__all__ = ["TASK", "read"]
