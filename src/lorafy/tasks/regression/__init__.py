"""Regression: a number a text (or a pair of texts), squared error.

Training works in units of the train split's standard deviation, so that one learning rate serves stars and percentages
alike; behind the last step the head's output layer is rescaled, so that every file on disk speaks the data's own unit.
"""

from __future__ import annotations

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
from ...models.shelf import Shelf
from ...objectives import TextObjective
from ...types import Example, Features, Finding, LossOutput
from .. import HeadKind, HeadTask
from .predict import Regressor
from .records import Values
from .scoring import MAE, figures, quick_figures, values_of, worst_errors
from .view import RegressionView

MOST_POINTS = 2_000
"""The most points of the scatter plot."""
FAR = 3
"""In standard deviations: zero then lies outside of nearly all values."""


@dataclass(frozen=True)
class SquaredError(TextObjective):
    """Squared error. scale: the unit of outputs and labels, in the data's own; the absolute error is counted beside, in
    the data's."""

    score: Metric = MAE
    scale: float = 1.0

    def of_outputs(self, outputs: torch.Tensor, labels: torch.Tensor) -> LossOutput:
        """Squared errors (in units of `scale` squared) and absolute ones, SUMMED over texts. outputs: (B, 1), fp32;
        labels: (B,), NaN to leave one out."""
        is_target = ~labels.isnan()
        errors = (outputs[:, 0] - labels)[is_target]
        return LossOutput(errors.square().sum(), errors.detach().abs().sum() * self.scale)


@dataclass(frozen=True)
class Regression(HeadTask):
    """The task with tokenizer and the longest text in tokens. mean, scale: mean and standard deviation of the train
    split's values; 0 and 1 once the model is trained."""

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
        """Its value in units of `scale`, in a list of one; NaN where there is none."""
        return [float("nan") if example.label is None else example.label / self.scale]

    def head_config(self) -> Mapping[str, Any]:
        """Settings of the head: one output, and the loss that transformers' own Trainer would take."""
        return {"num_labels": 1, "problem_type": "regression"}

    def load_base(self, section: ModelSection, seed: int, shelf: Shelf | None = None) -> BaseModel:
        """A new head begins at the mean, where its output layer has a bias; one that was trained already speaks the
        data's unit, and is brought to `scale`."""
        base = load_with_head(section, self.head_config(), self.tokenizer.pad_token_id, seed, shelf)
        layer = output_layer(base.model)
        new = {id(parameter) for name, parameter in base.model.named_parameters() if name in base.new_names}
        with torch.no_grad():
            for parameter in layer.parameters():
                if id(parameter) not in new:
                    parameter.div_(self.scale)
                elif parameter is layer.bias:
                    parameter.fill_(self.mean / self.scale)
        return base

    def check_model(self, model: Any) -> list[Finding]:
        """A finding on values far from zero, where the head cannot begin at their mean."""
        if output_layer(model).bias is not None or abs(self.mean) <= FAR * self.scale:
            return []
        values = f"mean {self.mean:.4g}, standard deviation {self.scale:.4g}"
        message = (
            f"this model's head has no bias, and the values lie far from 0 ({values}): it has to learn the way there"
        )
        return [Finding("values", "warning", message, "subtract the same number from every value, such as their mean")]

    def measure(self, model: Any, features: Sequence[Features], precision: Any) -> dict[str, float]:
        """Means over texts: `loss` in units of the variance, as in training; the others in the data's own unit."""
        outputs, truth = self.encoder.outputs(model, features, precision)[:, 0], values_of(features)
        loss = (outputs.double() - truth.double()).square().mean().item()
        return {"loss": loss} | quick_figures(outputs * self.scale, truth * self.scale)

    def rank(self, metrics: Mapping[str, float]) -> list[float]:
        """The loss with its sign changed: the lower, the better."""
        return [-metrics["loss"]]

    def finish(self, model: Any, validation: Sequence[Features] | None, precision: Any) -> Regression:
        """The output layer gives the data's own unit from now on: its weights times `scale`."""
        with torch.no_grad():
            for parameter in output_layer(model).parameters():
                parameter.mul_(self.scale)
        return replace(self, mean=0.0, scale=1.0)

    def judge(self, outputs: Any, features: Sequence[Features], examples: Sequence[Example]) -> dict[str, Any]:
        """Metrics with intervals, points to draw, the worst errors. Every example needs a value."""
        predicted, truth = outputs[:, 0], values_of(features)
        apart = max(1, -(-len(truth) // MOST_POINTS))
        return {
            "metrics": figures(predicted, truth),
            "points": torch.stack([truth, predicted], 1)[::apart].tolist(),
            "mistakes": worst_errors(predicted, truth, examples),
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
        """Whether its config names the loss of a regression."""
        return source.config.problem_type == "regression"

    def make(self, config: RunConfig, corpus: Corpus, source: Source) -> Regression:
        """The task of a recipe, with the mean and the standard deviation of the train split."""
        values = torch.tensor([example.label for example in corpus.splits["train"]], dtype=torch.float64)
        scale = values.std(correction=0).item() or 1.0
        return replace(super().make(config, corpus, source), mean=values.mean().item(), scale=scale)

    def check_examples(self, corpus: Corpus) -> list[Finding]:
        """Findings: the range of the values; values that are all the same, or outside of train's range."""
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
