"""Texts longer than the model reads."""

from __future__ import annotations

from collections.abc import Mapping

from ..config.schema import DataSection
from ..data.corpus import Corpus
from ..types import Encoded, Finding

MUCH = 0.05


def check_encoded(encoded: Mapping[str, Encoded], max_length: int, corpus: Corpus, data: DataSection) -> list[Finding]:
    findings = []
    for split, result in encoded.items():
        cut = sum(feature.truncated for feature in result.features)
        if cut:
            share = cut / len(result.features)
            texts = f"{cut:,} of {len(result.features):,} {split} texts ({share:.1%})"
            message = f"{texts} are longer than {max_length} tokens and {corpus.records.loses}"
            level = "warning" if share > MUCH else "note"
            findings.append(Finding("truncation", level, message, "raise data.max_length if the model allows"))
    return findings
