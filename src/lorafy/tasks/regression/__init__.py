"""Regression: a number a text (or a pair of texts), squared error.

Training works in units of the train split's standard deviation, so that one learning rate serves stars and percentages
alike; behind the last step the head's output layer is rescaled, so that every file on disk speaks the data's own unit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ...config.schema import GenerationSection, ModelSection, RunConfig
from ...data.corpus import Corpus
from ...inference.trained import Trained
from ...metrics import Metric
from ...models.load import BaseModel, Source, load_with_head
from ...objectives import TextObjective
from ...types import Example, Features, Finding, LossOutput
from .. import HeadKind, HeadTask
from .predict import Regressor
from .records import Values
from .scoring import MAE, figures, quick_figures, values_of, worst_errors
from .view import RegressionView

MOST_POINTS = 2_000
"""Of the scatter plot."""


@dataclass(frozen=True)
class SquaredError(TextObjective):
    """scale: the unit of outputs and labels, in the data's own; the absolute error is counted beside, in the data's."""

    score: Metric = MAE
    scale: float = 1.0

    def of_outputs(self, outputs: torch.Tensor, labels: torch.Tensor) -> LossOutput:
        """Summed over texts. outputs: (B, 1), fp32; labels: (B,), NaN to leave one out."""
        is_target = ~labels.isnan()
        errors = (outputs[:, 0] - labels)[is_target]
        return LossOutput(errors.square().sum(), errors.detach().abs().sum() * self.scale)


@dataclass(frozen=True)
class Regression(HeadTask):
    """The task with tokenizer and the longest text in tokens. mean, scale: of the train split's values; 0 and 1 once
    the model is trained."""

    mean: float = 0.0
    scale: float = 1.0

    name = "regression"
    best_metric = "loss"

    @property
    def objective(self) -> SquaredError:
        """See `Task`."""
        return SquaredError(scale=self.scale)

    @property
    def kind(self) -> RegressionKind:
        """See `Task`."""
        return KIND

    def labels_of(self, example: Example) -> list[float]:
        """Its value in units of `scale`; NaN where there is none."""
        return [float("nan") if example.label is None else example.label / self.scale]

    def head_config(self) -> Mapping[str, Any]:
        """One output, and the loss that transformers' own Trainer would take."""
        return {"num_labels": 1, "problem_type": "regression"}

    def load_base(self, section: ModelSection, seed: int) -> BaseModel:
        """A new head begins at the mean, where its output layer has a bias."""
        base = load_with_head(section, self.head_config(), self.tokenizer.pad_token_id, seed)
        layer = output_layer(base.model)
        is_new = {id(parameter) for name, parameter in base.model.named_parameters() if name in base.new_names}
        if layer.bias is not None and id(layer.bias) in is_new:
            nn.init.constant_(layer.bias, self.mean / self.scale)
        return base

    def measure(self, model: Any, features: Sequence[Features], precision: Any) -> dict[str, float]:
        """`loss` in units of the variance, as in training; the others in the data's own unit."""
        outputs, truth = self.encoder.outputs(model, features, precision)[:, 0], values_of(features)
        loss = (outputs.double() - truth.double()).square().mean().item()
        return {"loss": loss} | quick_figures(outputs * self.scale, truth * self.scale)

    def rank(self, metrics: Mapping[str, float]) -> list[float]:
        """The lower loss."""
        return [-metrics["loss"]]

    def finish(self, model: Any, validation: Sequence[Features] | None, precision: Any) -> Regression:
        """The output layer gives the data's own unit from now on: its weights times `scale`."""
        with torch.no_grad():
            for parameter in output_layer(model).parameters():
                parameter.mul_(self.scale)
        return replace(self, mean=0.0, scale=1.0)

    def score(self, trained: Trained, examples: Sequence[Example], settings: GenerationSection) -> dict[str, Any]:
        """Metrics with intervals, points to draw, the worst errors, times. Every example needs a value."""
        trained.merge()
        trained.place()
        started = time.perf_counter()
        features = self.encode(examples).features
        outputs = self.encoder.outputs(trained.model, features, trained.precision)[:, 0]
        seconds = time.perf_counter() - started
        truth = values_of(features)
        apart = max(1, -(-len(truth) // MOST_POINTS))
        return {
            "num_examples": len(examples),
            "num_truncated": sum(feature.truncated for feature in features),
            "metrics": figures(outputs, truth),
            "points": torch.stack([truth, outputs], 1)[::apart].tolist(),
            "mistakes": worst_errors(outputs, truth, examples),
            "seconds": round(seconds, 3),
            "examples_per_second": round(len(examples) / seconds, 1),
        }

    def ready(self, trained: Trained, settings: GenerationSection, seed: int) -> Regressor:
        """See `Task`."""
        return Regressor(trained, self.encoder)


def output_layer(model: Any) -> nn.Linear:
    """The last layer that gives a single number. peft keeps a frozen copy of a head before the trained one."""
    return [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == 1][-1]


class RegressionKind(HeadKind):
    """See `TaskKind`."""

    noun = "a regression model"
    task = Regression
    records = Values()
    view = RegressionView()

    def claims(self, source: Source) -> bool:
        """By what its config says of its loss."""
        return source.config.problem_type == "regression"

    def make(self, config: RunConfig, corpus: Corpus, source: Source) -> Regression:
        """With the mean and the standard deviation of the train split."""
        values = torch.tensor([example.label for example in corpus.splits["train"]], dtype=torch.float64)
        scale = values.std(correction=0).item() or 1.0
        return replace(super().make(config, corpus, source), mean=values.mean().item(), scale=scale)

    def check_examples(self, corpus: Corpus) -> list[Finding]:
        """What the values are; values that are all the same."""
        values = [example.label for example in corpus.splits["train"]]
        lowest, highest = min(values), max(values)
        if lowest == highest:
            message = f"every training row has the value {lowest:g}: there is nothing to learn"
            return [Finding("values", "error", message, "check data.columns.label and data.max_rows")]
        message = f"training values from {lowest:g} to {highest:g}, mean {sum(values) / len(values):.4g}"
        findings = [Finding("values", "note", message)]
        for name in ("validation", "test"):
            outside = sum(not lowest <= example.label <= highest for example in corpus.splits.get(name, []))
            if outside:
                message = f"{outside:,} {name} rows have values outside of that"
                findings.append(Finding("values", "warning", message, "a model hardly learns to go beyond what it saw"))
        return findings


KIND = RegressionKind()
