"""Sequence classification: one class a text (or a pair of texts), cross-entropy over the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..config.schema import GenerationSection
from ..data.corpus import Corpus
from ..data.labelled import ClassRecords
from ..evaluation.metrics import class_indices, classification_metrics, quick_metrics
from ..evaluation.mistakes import worst_mistakes
from ..inference.classify import Classifier
from ..inference.trained import Trained
from ..models.load import Source
from ..objectives.classes import ClassCrossEntropy
from ..preflight.labels import check_classes
from ..report.classes import ClassView
from ..types import IGNORE_INDEX, Example, Features, Finding
from . import HeadKind, HeadTask


@dataclass(frozen=True)
class Classification(HeadTask):
    """The task with what it needs of the model: tokenizer, label names in index order, the longest text in tokens."""

    name = "classification"
    best_metric = "accuracy"
    objective = ClassCrossEntropy()

    @property
    def kind(self) -> ClassificationKind:
        """See `Task`."""
        return KIND

    def labels_of(self, example: Example) -> list[int]:
        """The index of its class, in a list of one; IGNORE_INDEX where there is none."""
        return [IGNORE_INDEX if example.label is None else self._index_of[example.label]]

    @cached_property
    def _index_of(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.label_names)}

    def head_config(self) -> Mapping[str, Any]:
        """Settings of the head: an output for each class, with its name."""
        return {
            "id2label": dict(enumerate(self.label_names)),
            "label2id": self._index_of,
        }

    def measure(self, model: Any, features: Sequence[Features], precision: Any) -> dict[str, float]:
        """Mean loss over texts, accuracy, macro F1."""
        return quick_metrics(self.encoder.outputs(model, features, precision), class_indices(features))

    def rank(self, metrics: Mapping[str, float]) -> list[float]:
        """Accuracy first, then the loss with its sign changed: small validation sets tie often."""
        return [metrics["accuracy"], -metrics["loss"]]

    def judge(self, outputs: Any, features: Sequence[Features], examples: Sequence[Example]) -> dict[str, Any]:
        """Metrics and the worst mistakes. Every example needs a label."""
        labels = class_indices(features)
        return {
            "labels": list(self.label_names),
            "metrics": classification_metrics(outputs, labels, self.label_names),
            "mistakes": worst_mistakes(outputs, labels, examples, self.label_names),
        }

    def ready(self, trained: Trained, settings: GenerationSection, seed: int) -> Classifier:
        """See `Task`."""
        return Classifier(trained, self.encoder, self.label_names)


class ClassificationKind(HeadKind):
    """See `TaskKind`."""

    noun = "a classifier"
    task = Classification
    records = ClassRecords()
    view = ClassView()

    def claims(self, source: Source) -> bool:
        """False: what no other task claims is taken for a classifier."""
        return False

    def check_examples(self, corpus: Corpus) -> list[Finding]:
        """Findings on labels that cannot be learned."""
        return check_classes(corpus)


KIND = ClassificationKind()
