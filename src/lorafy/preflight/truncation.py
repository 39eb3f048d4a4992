"""Texts longer than the model reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..types import Features, Finding

MUCH = 0.05


def check_features(features: Mapping[str, Sequence[Features]], max_length: int) -> list[Finding]:
    findings = []
    for split, encoded in features.items():
        cut = sum(feature.truncated for feature in encoded)
        if cut:
            share = cut / len(encoded)
            texts = f"{cut:,} of {len(encoded):,} {split} texts ({share:.1%})"
            message = f"{texts} are longer than {max_length} tokens and lose their end"
            level = "warning" if share > MUCH else "note"
            findings.append(Finding("truncation", level, message, "raise data.max_length if the model allows"))
    return findings
