"""One optimizer step: the mathematics of training, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from ..models.precision import Precision
from ..types import Batch, NonFiniteLoss, Problem
from .paths import StepPath


@dataclass(frozen=True)
class StepResult:
    """Loss and score SUMMED over the targets of all micro-batches and processes, and the gradient's norm before
    clipping. regularisation: the method's own term, which is no part of the loss."""

    loss_sum: float
    score_sum: float
    num_targets: int
    grad_norm: float
    regularisation: float | None = None


@dataclass
class Stepper:
    """One optimizer step, with all that it works on."""

    model: Any
    path: StepPath
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    accelerator: Accelerator
    precision: Precision
    max_grad_norm: float | None
    after_update: Callable[[int], None]
    """The adapter method's own work after an update, given the step's number."""
    regularise: Callable[[], torch.Tensor | None] = lambda: None
    """The adapter method's own term of the loss: adds its gradient, gives its value."""

    def step(
        self, batches: Sequence[Batch], num_targets: int, learning_rate: float, seed: int, number: int
    ) -> StepResult:
        """The gradient of (sum of losses) / num_targets + regularisation, clipped, then one update.

        batches: this process's micro-batches of the step, at least one.
        num_targets: the targets of the whole step over all processes. Dividing every micro-batch's SUM by it makes
            the gradient independent of how the step was cut (dropout's masks do depend on the cut: exact at dropout 0).
        learning_rate: each of the optimizer's groups gets it times its `lr_scale`.
        seed: decides the dropout masks of this step on this process.
        number: of the step, counted from 1.
        Raises NonFiniteLoss before any weight has changed.
        """
        torch.manual_seed(seed)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        # Data-parallel training averages gradients over processes: times their number, it sums.
        scale = self.accelerator.num_processes / num_targets
        loss_sums, score_sums = [], []
        for index, batch in enumerate(batches):
            is_last = index == len(batches) - 1
            with nullcontext() if is_last else self.accelerator.no_sync(self.model):
                batch = batch.to(self.precision.device)
                output = self.path.loss(batch)
                self.accelerator.backward(self.scaler.scale(output.loss_sum * scale))
            loss_sums.append(output.loss_sum.detach())
            score_sums.append(output.score_sum)

        self.scaler.unscale_(self.optimizer)
        term = self.regularise()  # the same in every process, behind the sum over them
        limit = self.max_grad_norm if self.max_grad_norm is not None else float("inf")
        grad_norm = torch.nn.utils.clip_grad_norm_(parameters, limit)

        losses = torch.stack(loss_sums)
        totals = torch.stack([losses.sum(), torch.stack(score_sums).sum().to(losses.dtype)])
        totals = self.accelerator.reduce(totals, reduction="sum")
        # The step's one wait for the device.
        added = losses.new_zeros(()) if term is None else term.detach().to(losses.dtype)
        read = torch.cat([totals, torch.stack([grad_norm.to(losses.dtype), added]), losses])
        loss_sum, score_sum, norm, regularisation, *each = read.tolist()

        self._require_finite(loss_sum, norm, each, batches)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["lr_scale"]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.after_update(number)
        self.optimizer.zero_grad(set_to_none=False)
        return StepResult(loss_sum, score_sum, num_targets, norm, None if term is None else regularisation)

    def _require_finite(self, loss_sum: float, norm: float, each: list[float], batches: Sequence[Batch]) -> None:
        finite = torch.isfinite(torch.tensor([loss_sum, norm])).tolist()
        # With a scaled loss an infinite gradient is normal: the scaler skips the step and lowers its scale.
        if finite[0] and (finite[1] or self.precision.scales_loss):
            return
        self.optimizer.zero_grad(set_to_none=False)
        bad = next((index for index, value in enumerate(each) if not abs(value) < float("inf")), None)
        rows = f" in training rows {sorted(batches[bad].rows)}" if bad is not None else ""
        what = f"the loss is {loss_sum:g}{rows}" if not finite[0] else f"the gradient's norm is {norm:g}"
        fix = "lower train.learning_rate, look at these examples, or compute in model.dtype=float32"
        raise NonFiniteLoss(Problem("training", f"{what}; no weight was changed by this step", fix))
