"""Something must be held out, or the result says nothing."""

from __future__ import annotations

from ..data.corpus import Corpus
from ..types import Finding

FEW = 50


def check(corpus: Corpus) -> list[Finding]:
    scored = corpus.splits.get(corpus.scored_split, [])
    if not scored:
        message = "nothing is held out, so the result cannot be measured"
        return [
            Finding(
                "held_out",
                "error",
                message,
                "give data.validation or data.test, or leave data.split something",
            )
        ]
    if len(scored) < FEW:
        message = f"only {len(scored)} {corpus.scored_split} rows: the result will be rough (see its interval)"
        return [Finding("held_out", "warning", message)]
    return []
