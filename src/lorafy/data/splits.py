"""Sampling, splitting and balancing, all by seed. A text that occurs twice stays in one split."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from ..types import Example


def split_stratified(examples: Sequence[Example], shares: Sequence[float], seed: int) -> tuple[list[Example], ...]:
    """Cuts examples into parts of the given shares (summing to 1), each label in the same proportion.

    Examples with equal texts go to one part together, under the label of their first occurrence. Within a
    part the examples keep their order.
    """
    groups: dict[tuple[str, str | None], list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        groups[example.key].append(index)
    by_label: dict[str | None, list[list[int]]] = defaultdict(list)
    for indices in groups.values():
        by_label[examples[indices[0]].stratum].append(indices)

    parts: list[list[int]] = [[] for _ in shares]
    for label in sorted(by_label, key=str):
        members = by_label[label]
        random.Random(f"split {seed} {label}").shuffle(members)
        total, placed = sum(len(group) for group in members), [0] * len(shares)
        for group in members:
            # The part that lacks most of its share; the first on a tie.
            behind = [share * total - count for share, count in zip(shares, placed, strict=True)]
            part = behind.index(max(behind))
            parts[part] += group
            placed[part] += len(group)
    return tuple([examples[index] for index in sorted(part)] for part in parts)


def sample_stratified(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """`count` examples, the labels in proportion (largest remainders), in their order; all where there are fewer."""
    if count >= len(examples):
        return list(examples)
    by_label = _indices_by_label(examples)
    exact = {label: len(indices) * count / len(examples) for label, indices in by_label.items()}
    quotas = {label: int(value) for label, value in exact.items()}
    by_remainder = sorted(exact, key=lambda label: (quotas[label] - exact[label], str(label)))
    for label in by_remainder[: count - sum(quotas.values())]:
        quotas[label] += 1
    return _draw(examples, by_label, quotas, f"sample {seed}")


def downsample(examples: Sequence[Example], seed: int) -> list[Example]:
    """As many examples of each label as the rarest has, in their order."""
    by_label = _indices_by_label(examples)
    fewest = min(len(indices) for indices in by_label.values())
    return _draw(examples, by_label, dict.fromkeys(by_label, fewest), f"downsample {seed}")


def count_labels(examples: Iterable[Example]) -> dict[str, int]:
    """How many examples each class has, most frequent first."""
    return dict(Counter(name for example in examples for name in example.classes).most_common())


def _indices_by_label(examples: Sequence[Example]) -> dict[str | None, list[int]]:
    by_label: dict[str | None, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        by_label[example.stratum].append(index)
    return by_label


def _draw(
    examples: Sequence[Example],
    by_label: dict[str | None, list[int]],
    quotas: dict[str | None, int],
    seed: str,
) -> list[Example]:
    chosen: list[int] = []
    for label in sorted(by_label, key=str):
        chosen += random.Random(f"{seed} {label}").sample(by_label[label], quotas[label])
    return [examples[index] for index in sorted(chosen)]
