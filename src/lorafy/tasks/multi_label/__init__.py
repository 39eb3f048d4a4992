"""Multi-label classification: any number of classes a text, a sigmoid and a binary cross-entropy for each class.

A text says yes to every class whose probability reaches one threshold, chosen on the validation split for micro F1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch.nn import functional

from ...config.schema import GenerationSection, ModelSection
from ...data.corpus import Corpus
from ...data.splits import count_labels
from ...inference.trained import Trained
from ...metrics import Metric
from ...models.load import BaseModel, Source
from ...models.shelf import Shelf
from ...objectives import TextObjective
from ...types import Example, Features, Finding, LossOutput
from .. import HeadKind, HeadTask
from .predict import MultiLabelClassifier
from .records import LabelSets
from .scoring import DECISIONS, best_threshold, counts, exactly_right, f1_of, figures, share_right, truth_of
from .view import MultiLabelView

NUM_MISTAKES = 20
SHOWN_NAMES = 8
THRESHOLD_KEY = "label_threshold"
"""The threshold's key in a model's config.json: a merged model has no other file of ours."""


@dataclass(frozen=True)
class BinaryCrossEntropy(TextObjective):
    """Binary cross-entropy, a yes or no for each class of each text."""

    score: Metric = DECISIONS

    def of_outputs(self, outputs: torch.Tensor, labels: torch.Tensor) -> LossOutput:
        """Loss, and decisions that are right, SUMMED over texts and classes. outputs: (B, C), fp32; labels: (B, C) of 0
        and 1, NaN to leave one out."""
        labels = labels.view_as(outputs)  # of a single label they come as (B,)
        is_target = ~labels.isnan()
        outputs, truth = outputs[is_target], labels[is_target]
        loss_sum = functional.binary_cross_entropy_with_logits(outputs, truth, reduction="sum")
        return LossOutput(loss_sum, ((outputs.detach() > 0) == (truth > 0)).sum())


@dataclass(frozen=True)
class MultiLabel(HeadTask):
    """The task with tokenizer, label names in index order, the longest text in tokens, and the threshold."""

    threshold: float = 0.5

    name = "multi_label"
    best_metric = "f1_micro"
    objective = BinaryCrossEntropy()

    @property
    def kind(self) -> MultiLabelKind:
        """See `Task`."""
        return KIND

    @cached_property
    def _index_of(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.label_names)}

    def labels_of(self, example: Example) -> list[float]:
        """1.0 for each of its labels, 0.0 for the others; NaN where nobody said."""
        if example.label is None:
            return [float("nan")] * len(self.label_names)
        return [float(name in example.label) for name in self.label_names]

    def head_config(self) -> Mapping[str, Any]:
        """Settings of the head: an output for each label, and the loss that transformers' own Trainer would take."""
        return {
            "id2label": dict(enumerate(self.label_names)),
            "label2id": self._index_of,
            "problem_type": "multi_label_classification",
        }

    def settings(self) -> dict[str, Any]:
        """Fields of the manifest, the threshold among them."""
        return super().settings() | {"settings": {"threshold": self.threshold}}

    def load_base(self, section: ModelSection, seed: int, shelf: Shelf | None = None) -> BaseModel:
        """The base with its head; its config carries the threshold, for whoever saves or merges it."""
        base = super().load_base(section, seed, shelf)
        setattr(base.model.config, THRESHOLD_KEY, self.threshold)
        return base

    def measure(self, model: Any, features: Sequence[Features], precision: Any) -> dict[str, float]:
        """Mean loss over texts and labels; micro and macro F1 and subset accuracy at the threshold best for them; label
        accuracy at a half, as the training steps count it."""
        outputs, truth = self.encoder.outputs(model, features, precision), truth_of(features)
        loss = functional.binary_cross_entropy_with_logits(outputs.double(), truth.double()).item()
        said = outputs.double().sigmoid() >= best_threshold(outputs, truth)
        return {
            "loss": loss,
            **f1_of(counts(said, truth)),
            "subset_accuracy": exactly_right(said, truth),
            "label_accuracy": share_right(outputs > 0, truth),
        }

    def rank(self, metrics: Mapping[str, float]) -> list[float]:
        """Micro F1 first, then the loss with its sign changed."""
        return [metrics["f1_micro"], -metrics["loss"]]

    def finish(self, model: Any, validation: Sequence[Features] | None, precision: Any) -> MultiLabel:
        """The task with the threshold that is best on the validation split; without one it stays at a half."""
        if not validation:
            return self
        outputs = self.encoder.outputs(model, validation, precision)
        threshold = best_threshold(outputs, truth_of(validation))
        setattr(model.config, THRESHOLD_KEY, threshold)
        return replace(self, threshold=threshold)

    def judge(self, outputs: Any, features: Sequence[Features], examples: Sequence[Example]) -> dict[str, Any]:
        """Metrics with intervals, figures of each label, the worst mistakes. Every example needs its labels."""
        truth = truth_of(features)
        return {
            "labels": list(self.label_names),
            "metrics": figures(outputs, truth, self.label_names, self.threshold),
            "mistakes": self._mistakes(outputs, truth, examples),
        }

    def _mistakes(
        self, outputs: torch.Tensor, truth: torch.Tensor, examples: Sequence[Example]
    ) -> list[dict[str, Any]]:
        """Texts with a wrong label, the one that the model was surest of first."""
        shares = outputs.double().sigmoid()
        said = shares >= self.threshold
        sure = torch.where(said, shares, 1 - shares).masked_fill(said == (truth > 0), 0.0)
        worst, place = sure.max(1)
        order = sorted(worst.nonzero().flatten().tolist(), key=lambda row: -worst[row].item())
        return [
            {
                "text": examples[row].text,
                "text_pair": examples[row].text_pair,
                "labels": list(examples[row].label),
                "predicted": [name for name, yes in zip(self.label_names, said[row].tolist(), strict=True) if yes],
                "wrong": self.label_names[int(place[row])],
                "probability": shares[row, place[row]].item(),
                "source": examples[row].source,
                "row": examples[row].row,
            }
            for row in order[:NUM_MISTAKES]
        ]

    def ready(self, trained: Trained, settings: GenerationSection, seed: int) -> MultiLabelClassifier:
        """See `Task`."""
        return MultiLabelClassifier(trained, self.encoder, self.label_names, self.threshold)


class MultiLabelKind(HeadKind):
    """See `TaskKind`."""

    noun = "a multi-label classifier"
    task = MultiLabel
    records = LabelSets()
    view = MultiLabelView()

    def claims(self, source: Source) -> bool:
        """Whether its config names the loss of several labels a text."""
        return source.config.problem_type == "multi_label_classification"

    def restore(self, manifest: Any, source: Source) -> MultiLabel:
        """The task of what was trained, with the threshold that was chosen."""
        return replace(super().restore(manifest, source), threshold=manifest.settings["threshold"])

    def of_model(self, source: Source) -> MultiLabel:
        """The task of a model as it comes, with the threshold that its config names where lorafy merged it."""
        task = super().of_model(source)
        return replace(task, threshold=source.config.to_dict().get(THRESHOLD_KEY, task.threshold))

    def check_examples(self, corpus: Corpus) -> list[Finding]:
        """Findings on labels that train never shows, or shows in every row."""
        train = count_labels(corpus.splits["train"])
        if not train:
            message = "no training row has a label: there is nothing to learn"
            return [Finding("labels", "error", message, "check data.columns.label and data.max_rows")]
        num_rows, findings = len(corpus.splits["train"]), []
        without = sum(not example.classes for example in corpus.splits["train"])
        for name in ("validation", "test"):
            unseen = sorted(set(count_labels(corpus.splits.get(name, []))) - set(train))
            if unseen:
                message = f"{name} has labels that train does not show: {', '.join(unseen[:SHOWN_NAMES])}"
                findings.append(Finding("labels", "error", message, "add such rows to train, or take them out"))
        absent = [label for label in corpus.label_names if label not in train]
        if absent:
            message = f"no training row has the label {', '.join(absent[:SHOWN_NAMES])}"
            findings.append(Finding("labels", "warning", message, "it will hardly ever be predicted"))
        everywhere = [label for label, count in train.items() if count == num_rows]
        if everywhere:
            message = f"every training row has the label {', '.join(everywhere[:SHOWN_NAMES])}: nothing to tell apart"
            findings.append(Finding("labels", "warning", message))
        mean = sum(train.values()) / num_rows
        message = f"{len(corpus.label_names)} labels, {mean:.2f} a training row; {without:,} rows have none"
        findings.append(Finding("labels", "note", message))
        return findings


KIND = MultiLabelKind()
