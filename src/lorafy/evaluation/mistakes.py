"""The mistakes of which a classifier is surest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..types import Example

NUM_MISTAKES = 20


def worst_mistakes(
    scores: torch.Tensor, labels: torch.Tensor, examples: Sequence[Example], label_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Wrong predictions, the most confident first. scores: logits (N, C); labels: (N,) class indices."""
    probabilities = scores.double().softmax(-1)
    confidence, predicted = probabilities.max(-1)
    wrong = (predicted != labels).nonzero().flatten().tolist()
    wrong.sort(key=lambda index: -confidence[index].item())
    return [
        {
            "text": examples[index].text,
            "text_pair": examples[index].text_pair,
            "label": examples[index].label,
            "predicted": label_names[int(predicted[index])],
            "probability": confidence[index].item(),
            "source": examples[index].source,
            "row": examples[index].row,
        }
        for index in wrong[:NUM_MISTAKES]
    ]
