"""What training lowers: a micro-batch's loss as a SUM over its targets. Apart from the tasks, which choose one.

An objective that one task alone needs may stand in that task's file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..metrics import Metric
from ..types import IGNORE_INDEX, Batch, LossOutput

TEXTS, TOKENS = "texts", "tokens"
"""What a model's outputs stand for: a row of them for each text (B, C), or for each supervised token (B, K, V)."""


@dataclass(frozen=True)
class TextObjective:
    """The objective of models that give a row of outputs for each text. A subclass says what is lost: `of_outputs`."""

    score: Metric
    reads: str = TEXTS

    def loss(self, model: Any, batch: Batch) -> LossOutput:
        """Loss and score SUMMED over the texts of `batch`; fp32, by the model's own forward pass."""
        return self.of_outputs(model(**batch.inputs).logits.float(), batch.labels)

    def of_outputs(self, outputs: torch.Tensor, labels: torch.Tensor) -> LossOutput:
        """Loss and score SUMMED over texts. outputs: (B, C), fp32; labels: (B,) or (B, C), from the task's
        `collate`."""
        raise NotImplementedError

    def ignored(self, labels: torch.Tensor) -> torch.Tensor:
        """Labels of the same shape that take no part in the loss."""
        nothing = float("nan") if labels.is_floating_point() else IGNORE_INDEX
        return torch.full_like(labels, nothing)
