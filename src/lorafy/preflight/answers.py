"""Answers that cannot be trained on, and how much of the text is trained at all."""

from __future__ import annotations

from collections.abc import Mapping

from ..config.schema import DataSection
from ..data.corpus import Corpus
from ..types import Encoded, Finding

MOST_SKIPPED = 0.01
"""The share of rows that may be left out with a warning; above it somebody has to decide."""
SHOWN = 5


def check_encoded(encoded: Mapping[str, Encoded], max_length: int, corpus: Corpus, data: DataSection) -> list[Finding]:
    findings = []
    for split, result in encoded.items():
        if result.skipped:
            skipped = sorted({skip.row for skip in result.skipped})
            total = len({feature.row for feature in result.features}.union(skipped))
            share = len(skipped) / total
            rows = ", ".join(map(str, skipped[:SHOWN]))
            more = ", ..." if len(skipped) > SHOWN else ""
            what = f"{len(skipped):,} of {total:,} {split} rows ({share:.1%}) cannot be used"
            message = f"{what}: {result.skipped[0].reason} (row {rows}{more})"
            smaller = "lower data.max_pixels, " if "max_pixels" in corpus.records.uses(corpus.format) else ""
            fix = f"raise data.max_length if the model allows, {smaller}shorten them, or leave them out: "
            fix += "data.too_long=skip"
            is_refused = share > MOST_SKIPPED and data.too_long == "refuse"
            findings.append(Finding("answers", "error" if is_refused else "warning", message, fix))
        if not result.features:
            findings.append(Finding("answers", "error", f"nothing in {split} can be trained on", "check the columns"))
    return findings


def check_share(encoded: Mapping[str, Encoded]) -> list[Finding]:
    """A note on the share of training tokens that are targets; a task whose targets are tokens calls it."""
    train = encoded["train"].features
    if not train:
        return []
    targets, tokens = sum(feature.num_targets for feature in train), sum(map(len, train))
    message = f"{targets:,} of {tokens:,} training tokens are targets ({targets / tokens:.0%}): answers and their end"
    return [Finding("answers", "note", message)]
