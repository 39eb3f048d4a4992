"""Texts in, labels with probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..encoding.texts import TextEncoder
from .read_texts import TextPair, TextReader
from .trained import Trained


@dataclass(frozen=True)
class Prediction:
    """The predicted label of one text. `probabilities` maps every label name to its softmax probability; `probability`
    is the predicted label's."""

    text: str
    label: str
    probability: float
    probabilities: dict[str, float]
    truncated: bool = False

    @property
    def shown(self) -> str:
        """The label and its probability in per cent, as a line of the terminal begins."""
        return f"{self.label}\t{self.probability:.1%}"

    @property
    def cells(self) -> dict[str, Any]:
        """A row of a csv file by column, one column for each probability (0 to 1)."""
        shares = {f"probability_{name}": f"{value:.6f}" for name, value in self.probabilities.items()}
        return {"text": self.text, "label": self.label, "probability": f"{self.probability:.6f}", **shares}


class Classifier(TextReader):
    """A trained model, merged and ready: `load("runs/demo-1").classify(["a text"])`."""

    def __init__(self, trained: Trained, encoder: TextEncoder, label_names: Sequence[str]):
        super().__init__(trained, encoder)
        self.labels = list(label_names)

    def classify(self, texts: Sequence[TextPair]) -> list[Prediction]:
        """One prediction a text; a pair of texts is a tuple."""
        examples, features, outputs = self.read(texts)
        predictions = []
        for example, feature, row in zip(examples, features, outputs.double().softmax(-1), strict=True):
            probabilities = {name: row[index].item() for index, name in enumerate(self.labels)}
            label = self.labels[int(row.argmax())]
            predictions.append(Prediction(example.text, label, probabilities[label], probabilities, feature.truncated))
        return predictions

    def predict(self, texts: Sequence[TextPair]) -> list[Prediction]:
        """`classify`, under the name that every model which reads texts has."""
        return self.classify(texts)
