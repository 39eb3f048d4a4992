"""Cross-entropy over the classes of a text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from ..metrics import ACCURACY, Metric
from ..types import IGNORE_INDEX, LossOutput
from . import TextObjective


@dataclass(frozen=True)
class ClassCrossEntropy(TextObjective):
    """Cross-entropy, one class a text: minus the logarithm of the softmax's share of the right one."""

    score: Metric = ACCURACY

    def of_outputs(self, outputs: torch.Tensor, labels: torch.Tensor) -> LossOutput:
        """Loss, and texts predicted right, SUMMED over texts. outputs: (B, C), fp32; labels: (B,) class indices."""
        loss_sum = functional.cross_entropy(outputs, labels, reduction="sum", ignore_index=IGNORE_INDEX)
        return LossOutput(loss_sum, (outputs.detach().argmax(-1) == labels).sum())
