"""Something must be held out, or the result says nothing."""

from __future__ import annotations

from collections import Counter

from ..data.corpus import Corpus
from ..types import Finding

FEW = 50
FEWEST_TO_CUT = 4
"""Rows of one label: with fewer, all go to train under the default shares."""


def check(corpus: Corpus) -> list[Finding]:
    scored = corpus.splits.get(corpus.scored_split, [])
    if not scored:
        texts = {example.key: example.stratum for example in corpus.splits["train"]}
        most = max(Counter(texts.values()).values())
        if most < FEWEST_TO_CUT:
            several = f"{most} different {corpus.records.unit}{'s' if most > 1 else ''}"
            has_classes = any(stratum is not None for stratum in texts.values())
            message = f"{f'no label has more than {several}' if has_classes else several}: too few to hold any out"
            return [Finding("held_out", "error", message, "add rows, or give data.validation")]
        message = "nothing is held out, so the result cannot be measured"
        fix = "give data.validation or data.test, or leave data.split something"
        return [Finding("held_out", "error", message, fix)]
    if len(scored) < FEW:
        rows = "row" if len(scored) == 1 else "rows"
        message = f"only {len(scored)} {corpus.scored_split} {rows}: the result will be rough (see its interval)"
        return [Finding("held_out", "warning", message)]
    return []
