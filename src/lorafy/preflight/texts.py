"""Texts that are none: a column of numbers was taken for the text."""

from __future__ import annotations

from ..data.corpus import Corpus
from ..types import Finding


def check(corpus: Corpus) -> list[Finding]:
    train = corpus.splits["train"]
    if not train or corpus.records.unit != "text" or not all(_is_number(example.text) for example in train):
        return []
    message = f"every training text is a number, such as '{train[0].text}'"
    return [Finding("texts", "warning", message, "data.columns.text seems to name another column than the text")]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
