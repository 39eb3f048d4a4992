"""Cross-entropy over the tokens of a vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..metrics import LOGGED_TOKEN_ACCURACY, Metric
from ..types import IGNORE_INDEX, Batch, LossOutput
from . import TOKENS


@dataclass(frozen=True)
class TokenCrossEntropy:
    """Cross-entropy of each target token, given those before it. The fast path computes it without keeping the
    logits."""

    score: Metric = LOGGED_TOKEN_ACCURACY
    reads: str = TOKENS

    def loss(self, model: Any, batch: Batch) -> LossOutput:
        """Loss, and tokens predicted right, SUMMED over the target tokens of `batch`; fp32."""
        losses, correct = token_losses(model, batch)
        return LossOutput(losses.sum(), correct.sum())

    def ignored(self, labels: torch.Tensor) -> torch.Tensor:
        """Labels of the same shape that take no part in the loss."""
        return torch.full_like(labels, IGNORE_INDEX)


def token_losses(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropies (B, K), fp32, zero where there is no target; and whether each target was predicted (B, K)."""
    logits = model(**batch.inputs).logits.float()
    is_target = batch.labels != IGNORE_INDEX
    right = batch.labels.where(is_target, 0)[..., None]
    losses = -logits.log_softmax(-1).gather(-1, right)[..., 0]
    return losses.where(is_target, 0.0), logits.detach().argmax(-1) == batch.labels
