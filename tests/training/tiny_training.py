"""A training of a bag of words: what the loop does, without a transformer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator

from lorafy.config.schema import AdapterSection, TrainSection
from lorafy.data.batches import StepPlan
from lorafy.models.parts import ChosenParts, at_their_rates
from lorafy.models.precision import Precision
from lorafy.plugins import load_method
from lorafy.run_directory import RunDirectory
from lorafy.tasks.classification import Classification
from lorafy.training.checkpoint import Progress
from lorafy.training.loop import Training
from lorafy.training.optim import make_optimizer
from lorafy.training.paths import PlainPath
from lorafy.training.step import Stepper
from lorafy.types import Features, StepStats

STEPS_PER_EPOCH = 4
BATCH_SIZE = 3


class BagOfWords(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(20, 4)
        self.dropout = torch.nn.Dropout(0.3)
        self.head = torch.nn.Linear(4, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        mask = attention_mask[..., None]
        mean = (self.embedding(input_ids) * mask).sum(1) / mask.sum(1)
        return SimpleNamespace(logits=self.head(self.dropout(mean)))


class Recorder:
    """Display and tracker: keeps what it is told; `after` is called with each step's stats."""

    def __init__(self, after: Callable[[StepStats], None] | None = None):
        self.records: list[dict[str, Any]] = []
        self.steps: list[StepStats] = []
        self.validations: list[tuple[int, bool]] = []
        self._after = after

    def on_step(self, stats: StepStats) -> None:
        self.steps.append(stats)
        if self._after:
            self._after(stats)

    def on_validation(self, record: Mapping[str, Any], is_best: bool) -> None:
        self.validations.append((record["step"], is_best))

    def log(self, record: Mapping[str, Any]) -> None:
        self.records.append(dict(record))

    def close(self) -> None: ...


def make_training(
    path: Path,
    num_steps: int = 12,
    accuracies: Sequence[float] | None = None,
    recorder: Recorder | None = None,
    parts: ChosenParts | None = None,
    **settings: Any,
) -> Training:
    """Four steps an epoch. `accuracies`: what the validations find, one after the other; None: nothing to validate."""
    config = TrainSection(**({"batch_size": BATCH_SIZE, "learning_rate": 0.1, "log_every": 1} | settings))
    generator = torch.Generator().manual_seed(2)
    ids = [torch.randint(1, 20, (1 + index % 5,), generator=generator).tolist() for index in range(11)]
    features = [Features(each, [index % 2], index) for index, each in enumerate(ids)]
    model = BagOfWords()
    recorder = recorder or Recorder()
    findings = iter(accuracies or [])
    task = Classification(SimpleNamespace(pad_token_id=0), ["a", "b"], 8)
    precision, method = Precision(torch.float32, torch.device("cpu")), load_method("full")
    stepper = Stepper(
        model=model,
        path=PlainPath(model, task, precision, config.micro_batch_size),
        optimizer=make_optimizer(
            at_their_rates(method.parameter_groups(model, AdapterSection()), model, parts), config
        ),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        accelerator=Accelerator(),
        precision=precision,
        max_grad_norm=1.0,
        after_update=lambda number: method.after_update(model, number),
    )
    return Training(
        run=RunDirectory(path),
        config=config,
        seed=5,
        peak_learning_rate=0.1,
        task=task,
        method=method,
        stepper=stepper,
        features=features,
        plan=StepPlan(len(features), BATCH_SIZE, seed=5),
        num_steps=num_steps,
        validate=None if accuracies is None else lambda: {"accuracy": next(findings), "loss": 1.0},
        trackers=[recorder],
        display=recorder,
        progress=Progress(),
    )
