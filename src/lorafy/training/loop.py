"""The training loop: steps, validation, checkpoints, stopping. What happens in a step is in step.py."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from ..adapter_contract import AdapterMethod
from ..config.schema import TrainSection
from ..contracts import Task, Tracker
from ..data.batches import StepPlan, dropout_seed
from ..run_directory import RunDirectory
from ..types import Batch, DataError, Features, Interrupted, StepStats
from .checkpoint import (
    Progress,
    Window,
    load_checkpoint,
    load_weights,
    remove_old_checkpoints,
    save_checkpoint,
)
from .hardware import current_memory_bytes
from .optim import learning_rate_at
from .rank_log import RankLog
from .step import Stepper
from .stop_signal import StopSignal


class Display(Protocol):
    """Who shows the run to a person."""

    def on_step(self, stats: StepStats) -> None:
        """Called after each step."""
        ...

    def on_validation(self, record: Mapping[str, Any], is_best: bool) -> None:
        """Called after each validation with its record of metrics.jsonl."""
        ...


@dataclass
class Training:
    """One run: what it works on and how far it is.

    features: the encoded training examples. num_steps: optimizer steps of the whole run.
    validate: returns the metrics of the validation split as Task.measure does; None where there is none.
    ranks: where a method that changes ranks has them logged, in the main process.
    """

    run: RunDirectory
    config: TrainSection
    seed: int
    peak_learning_rate: float
    task: Task
    method: AdapterMethod
    stepper: Stepper
    features: Sequence[Features]
    plan: StepPlan
    num_steps: int
    validate: Callable[[], Mapping[str, float]] | None
    trackers: Sequence[Tracker]
    display: Display
    progress: Progress
    is_fast: bool = False
    ranks: RankLog | None = None

    def resume(self, step: int) -> None:
        """Puts model, optimizer and progress back to a checkpoint."""
        self.progress = load_checkpoint(
            self.run, step, self._bare_model, self.stepper.optimizer, self.stepper.scaler, self.method
        )

    def train(self) -> Progress:
        """Trains to the end and leaves the best weights in the model (the last where nothing was validated).

        Raises Interrupted after SIGINT or SIGTERM, DataError where a step's data cannot be read any more; both with a
        checkpoint of the last whole step written.
        """
        self.stepper.model.train()
        with StopSignal() as stop:
            while self._goes_on:
                is_best = self._step_and_validate()
                stopped = self._agree(stop.received)
                if is_best or self._is_due(self.config.save_every) or self._is_last or stopped:
                    self._save()
                if stopped and not self._is_last:
                    message = f"stopped at step {self.progress.step} of {self.num_steps}; the checkpoint is written"
                    raise Interrupted(stopped, message)
        best = self.progress.best_step
        if best is not None and best != self.progress.step:
            load_weights(self.run, best, self._bare_model)
        return self.progress

    @property
    def _bare_model(self) -> Any:
        return self.stepper.accelerator.unwrap_model(self.stepper.model)

    @property
    def _is_main(self) -> bool:
        return self.stepper.accelerator.is_main_process

    @property
    def _is_last(self) -> bool:
        return self.progress.step == self.num_steps or self.progress.stopped_early

    def _is_due(self, every: int | str | None) -> bool:
        if every is None:
            return False
        interval = self.plan.steps_per_epoch if every == "epoch" else every
        assert isinstance(interval, int)
        return self.progress.step % interval == 0

    def _agree(self, received: int | None) -> int | None:
        """The signal that any process received, for all: it may reach one only, or each at another step; all stop after
        the same one."""
        accelerator = self.stepper.accelerator
        if accelerator.num_processes == 1:
            return received
        numbers = accelerator.gather(torch.tensor([received or 0], device=accelerator.device))
        return int(numbers.max()) or None

    @property
    def _goes_on(self) -> bool:
        progress = self.progress
        return progress.awaits_validation or (progress.step < self.num_steps and not progress.stopped_early)

    def _step_and_validate(self) -> bool:
        """A step, and the validation that is due behind it; True where it is the best so far.

        Where their data cannot be read any more (a picture was deleted) what was learned before is kept: no step has
        changed a weight by then, and a validation is made up for after a resume.
        """
        progress = self.progress
        try:
            if not progress.awaits_validation:
                self.display.on_step(self._one_step())
                progress.awaits_validation = self._validates_now
            return self._validate() if progress.awaits_validation else False
        except DataError:
            self._save()
            raise

    def _one_step(self) -> StepStats:
        started = time.perf_counter()
        progress, number = self.progress, self.progress.step + 1
        examples = self.plan.examples(progress.step)
        rate = learning_rate_at(number, self.num_steps, self.peak_learning_rate, self.config)
        num_targets = sum(self.features[index].num_targets for index in examples)
        seed = self._dropout_seed(number)
        result = self.stepper.step(self._batches(examples, seed), num_targets, rate, seed, number)
        seconds = time.perf_counter() - started
        num_tokens = sum(len(self.features[index]) for index in examples)

        if self.ranks is not None:
            self.ranks.log(number, self.method.ranks(self._bare_model))

        progress.step, progress.seconds = number, progress.seconds + seconds
        progress.fast_steps += self.is_fast
        window = progress.window
        window.loss_sum += result.loss_sum
        window.score_sum += result.score_sum
        window.num_targets += result.num_targets
        window.num_examples += len(examples)
        window.num_tokens += num_tokens
        window.num_steps += 1
        window.seconds += seconds
        stats = StepStats(
            step=number,
            epoch=number / self.plan.steps_per_epoch,
            loss=result.loss_sum / result.num_targets,
            score=result.score_sum / result.num_targets,
            learning_rate=rate,
            grad_norm=result.grad_norm,
            num_examples=len(examples),
            num_tokens=num_tokens,
            seconds=seconds,
        )
        if number % self.config.log_every == 0 or number == self.num_steps:
            self._log_window(stats, result.regularisation)
        return stats

    def _batches(self, examples: list[int], seed: int) -> list[Batch]:
        """This process's share of the step, cut into micro-batches."""
        accelerator = self.stepper.accelerator
        mine = examples[accelerator.process_index :: accelerator.num_processes]
        features = [self.features[index] for index in mine or examples[:1]]
        batches = self.stepper.path.batches(features, mine or examples[:1], seed)
        if mine:
            return batches
        # A process without an example in a step takes part in it all the same, without targets.
        return [replace(batch, labels=self.task.objective.ignored(batch.labels)) for batch in batches]

    def _dropout_seed(self, step: int) -> int:
        accelerator = self.stepper.accelerator
        return dropout_seed(self.seed, step * accelerator.num_processes + accelerator.process_index)

    def _log_window(self, stats: StepStats, regularisation: float | None) -> None:
        window = self.progress.window
        own_term = {} if regularisation is None else {"regularisation": regularisation}
        self._track(
            {
                "split": "train",
                "step": stats.step,
                "epoch": round(stats.epoch, 4),
                "loss": window.loss_sum / window.num_targets,
                **own_term,
                self.task.objective.score.key: window.score_sum / window.num_targets,
                "learning_rate": stats.learning_rate,
                "grad_norm": stats.grad_norm if math.isfinite(stats.grad_norm) else None,
                "examples_per_second": window.num_examples / window.seconds,
                "tokens_per_second": window.num_tokens / window.seconds,
                "memory_bytes": current_memory_bytes(),
                "seconds": round(self.progress.seconds, 3),
            }
        )
        self.progress.window = Window()

    @property
    def _validates_now(self) -> bool:
        if self.validate is None or self.config.evaluate_every is None:
            return False
        return self._is_due(self.config.evaluate_every) or self._is_last

    def _validate(self) -> bool:
        """True where this is the best so far."""
        assert self.validate is not None, "only what can be validated is due"
        self.stepper.model.eval()
        metrics = self.validate()
        self.stepper.model.train()
        progress = self.progress
        progress.awaits_validation = False
        value = self.task.rank(metrics)
        may_be_kept = self.method.may_be_kept(self._bare_model, progress.step)
        is_best = may_be_kept and (progress.best is None or value > progress.best)
        if is_best:
            progress.best, progress.best_step, progress.evaluations_without_gain = value, progress.step, 0
            progress.best_metrics = dict(metrics)
        else:
            progress.evaluations_without_gain += may_be_kept
        patience = self.config.early_stopping
        progress.stopped_early = patience is not None and progress.evaluations_without_gain >= patience
        record = {
            "split": "validation",
            "step": progress.step,
            "epoch": round(progress.step / self.plan.steps_per_epoch, 4),
            **metrics,
            "seconds": round(progress.seconds, 3),
        }
        self._track(record)
        self.display.on_validation(record, is_best)
        return is_best

    def _track(self, record: Mapping[str, Any]) -> None:
        if self._is_main:
            for tracker in self.trackers:
                tracker.log(record)

    def _save(self) -> None:
        if not self._is_main:
            return
        progress = self.progress
        save_checkpoint(self.run, self._bare_model, self.stepper.optimizer, self.stepper.scaler, self.method, progress)
        if progress.best_step == progress.step and progress.best is not None:
            self.run.name_step("best", progress.step, **(progress.best_metrics or {}))
        remove_old_checkpoints(self.run, self.config.keep_checkpoints, progress.best_step)
