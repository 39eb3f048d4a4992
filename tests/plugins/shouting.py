"""A pre-flight check that lorafy does not know."""

from __future__ import annotations

from lorafy.data.corpus import Corpus
from lorafy.types import Finding


def check(corpus: Corpus) -> list[Finding]:
    loud = sum(example.text.isupper() for example in corpus.splits["train"])
    return [Finding("shouting", "note", f"{loud} training texts shout")]
