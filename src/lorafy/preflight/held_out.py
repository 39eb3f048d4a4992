"""Something must be held out, or the result says nothing."""

from __future__ import annotations

from collections import Counter

from ..data.corpus import Corpus
from ..types import Finding

FEW = 50
FEWEST_TO_CUT = 4
"""Of one label: with fewer, all go to train under the default shares."""


def check(corpus: Corpus) -> list[Finding]:
    scored = corpus.splits.get(corpus.scored_split, [])
    if not scored:
        texts = {example.key: example.label for example in corpus.splits["train"]}
        most = max(Counter(texts.values()).values())
        if most < FEWEST_TO_CUT and corpus.format != "labelled":
            message = f"{most} different question{'s' if most > 1 else ''}: too few to hold any out"
            return [Finding("held_out", "error", message, "add rows, or give data.validation")]
        if most < FEWEST_TO_CUT:
            message = f"no label has more than {most} different text{'s' if most > 1 else ''}: too few to hold any out"
            return [Finding("held_out", "error", message, "add rows, or give data.validation")]
        message = "nothing is held out, so the result cannot be measured"
        fix = "give data.validation or data.test, or leave data.split something"
        return [Finding("held_out", "error", message, fix)]
    if len(scored) < FEW:
        rows = "row" if len(scored) == 1 else "rows"
        message = f"only {len(scored)} {corpus.scored_split} {rows}: the result will be rough (see its interval)"
        return [Finding("held_out", "warning", message)]
    return []
