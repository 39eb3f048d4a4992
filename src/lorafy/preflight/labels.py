"""Labels that cannot be learned: a single one, ones that train never shows, a column that is no label."""

from __future__ import annotations

from ..data.corpus import Corpus
from ..data.labelled import is_number
from ..data.splits import count_labels
from ..types import Finding

MOST_LABELS = 1_000
UNEVEN = 0.4
"""A label is rare below this share of the rows that it would have if all labels had the same number."""
SHOWN = 8


def check_classes(corpus: Corpus) -> list[Finding]:
    """Findings on the labels, for tasks whose texts belong to one class each; such a task calls it."""
    findings = []
    train = count_labels(corpus.splits["train"])
    num_rows = sum(train.values())
    if len(train) == 1:
        message = f"every training row has the label '{next(iter(train))}': there is nothing to tell apart"
        fix = "two labels at least: check data.columns.label and data.max_rows"
        findings.append(Finding("labels", "error", message, fix))
    if len(train) > min(MOST_LABELS, max(20, num_rows // 2)):
        message = f"{len(train):,} different labels in {num_rows:,} training rows"
        fix = "data.columns.label seems to name a text or a number"
        if all(map(is_number, train)):
            fix += "; to learn numbers: task=regression"
        findings.append(Finding("labels", "error", message, fix))
        return findings
    for name in ("validation", "test"):
        counts = count_labels(corpus.splits.get(name, []))
        unseen = [label for label in counts if label not in train]
        if unseen:
            shown = ", ".join(f"'{label}' (rows: {counts[label]:,})" for label in unseen[:SHOWN])
            message = f"{name} has labels that train does not show: {shown}"
            findings.append(Finding("labels", "error", message, "add such rows to train, or take them out"))
    if train and all(map(is_number, train)) and any(float(label) % 1 for label in train):
        example = next(label for label in train if float(label) % 1)
        message = f"the labels are numbers, such as {example}, and are learned as {len(train)} classes without an order"
        findings.append(Finding("labels", "warning", message, "if their size means something: task=regression"))
    absent = [label for label in corpus.label_names if label not in train]
    if absent and len(train) > 1:
        message = f"no training row has the label {', '.join(absent[:SHOWN])}"
        findings.append(Finding("labels", "warning", message, "it will hardly ever be predicted"))
    if train and min(train.values()) < UNEVEN * num_rows / len(train):
        rarest = min(train, key=lambda label: train[label])
        message = (
            f"'{rarest}' has {train[rarest]:,} of {num_rows:,} training rows: read F1 per class, not accuracy alone"
        )
        findings.append(Finding("labels", "note", message))
    return findings
