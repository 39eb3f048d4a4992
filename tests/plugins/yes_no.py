"""A task that lorafy does not know: whether a text is of the first class, by one output and a logistic loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from lorafy.config.schema import GenerationSection, RunConfig
from lorafy.data.labelled import ClassRecords
from lorafy.inference.read_texts import TextPair, TextReader
from lorafy.inference.trained import Trained
from lorafy.metrics import Metric, numbers
from lorafy.models.load import Source
from lorafy.objectives import TextObjective
from lorafy.report.view import View
from lorafy.tasks import HeadKind, HeadTask
from lorafy.types import Example, Features, LossOutput

RIGHT = Metric("right", "share of right answers", "yes where it is yes", numbers.percent)


@dataclass(frozen=True)
class Logistic(TextObjective):
    score: Metric = RIGHT

    def of_outputs(self, outputs: torch.Tensor, labels: torch.Tensor) -> LossOutput:
        is_target = ~labels.isnan()
        yes, truth = outputs[:, 0][is_target], labels[is_target]
        loss_sum = functional.binary_cross_entropy_with_logits(yes, truth, reduction="sum")
        return LossOutput(loss_sum, ((yes.detach() > 0) == (truth > 0)).sum())


@dataclass(frozen=True)
class YesNo(HeadTask):
    name = "yes_no"
    best_metric = "right"
    objective = Logistic()

    @property
    def kind(self) -> YesNoKind:
        return KIND

    def labels_of(self, example: Example) -> list[float]:
        return [float("nan") if example.label is None else float(example.label == self.label_names[0])]

    def head_config(self) -> Mapping[str, Any]:
        return {"num_labels": 1}

    def measure(self, model: Any, features: Sequence[Features], precision: Any) -> dict[str, float]:
        outputs = self.encoder.outputs(model, features, precision)
        output = self.objective.of_outputs(outputs, torch.tensor([one.labels[0] for one in features]))
        return {"loss": output.loss_sum.item() / len(features), "right": output.score_sum.item() / len(features)}

    def rank(self, metrics: Mapping[str, float]) -> list[float]:
        return [metrics["right"]]

    def judge(self, outputs: Any, features: Sequence[Features], examples: Sequence[Example]) -> dict[str, Any]:
        output = self.objective.of_outputs(outputs, torch.tensor([one.labels[0] for one in features]))
        metrics = {"loss": output.loss_sum.item() / len(features), "right": output.score_sum.item() / len(features)}
        return {"labels": list(self.label_names), "metrics": metrics}

    def ready(self, trained: Trained, settings: GenerationSection, seed: int) -> Answers:
        return Answers(trained, self.encoder)


@dataclass(frozen=True)
class YesOrNo:
    text: str
    yes: bool
    truncated: bool = False

    @property
    def shown(self) -> str:
        return "yes" if self.yes else "no"

    @property
    def cells(self) -> dict[str, Any]:
        return {"text": self.text, "yes": self.yes}


class Answers(TextReader):
    def predict(self, texts: Sequence[TextPair]) -> list[YesOrNo]:
        examples, features, outputs = self.read(texts)
        rows = zip(examples, features, outputs[:, 0].tolist(), strict=True)
        return [YesOrNo(example.text, yes > 0, feature.truncated) for example, feature, yes in rows]


class Records(ClassRecords):
    is_default = False

    def suits(self, examples: Sequence[Example], config: RunConfig) -> str | None:
        return None


class RightView(View):
    metrics = (RIGHT,)
    compared = (RIGHT,)
    logged = (RIGHT,)
    curve = RIGHT


class YesNoKind(HeadKind):
    noun = "a model that says yes or no"
    task = YesNo
    records = Records()
    view = RightView()

    def claims(self, source: Source) -> bool:
        return False


KIND = YesNoKind()
