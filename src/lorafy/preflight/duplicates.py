"""Texts that occur twice: with different labels, or on both sides of a split."""

from __future__ import annotations

from collections import defaultdict

from ..data.corpus import Corpus
from ..types import Finding


def check(corpus: Corpus) -> list[Finding]:
    findings = []
    labels: dict[object, set[str | None]] = defaultdict(set)
    count = 0
    for example in corpus.splits["train"]:
        count += example.key in labels
        labels[example.key].add(example.label)
    contradictory = sum(len(seen) > 1 for seen in labels.values())
    what = corpus.records.unit  # a conversation has no label: several answers to a question are no mistake
    if contradictory:
        message = f"{contradictory:,} texts stand in train with different labels"
        findings.append(Finding("duplicates", "warning", message, "decide on one label for each"))
    if count:
        findings.append(Finding("duplicates", "note", f"{count:,} training rows repeat an earlier {what}"))
    for name in ("validation", "test"):
        shared = sum(example.key in labels for example in corpus.splits.get(name, []))
        if shared:
            total = len(corpus.splits[name])
            message = f"{shared:,} of {total:,} {name} rows have a {what} that train has too: the result is flattered"
            findings.append(Finding("duplicates", "warning", message, "take them out of one of the two"))
    return findings
