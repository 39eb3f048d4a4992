"""XLM-RoBERTa, RoBERTa in a hundred languages: Conneau et al. 2019."""

from .roberta import READS, read

__all__ = ["READS", "read"]
