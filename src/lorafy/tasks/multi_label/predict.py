"""Texts in, the labels that they carry out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...encoding.texts import TextEncoder
from ...inference.read_texts import TextPair, TextReader
from ...inference.trained import Trained


@dataclass(frozen=True)
class MultiLabelPrediction:
    """The predicted labels of one text. `labels`: those whose probability reaches the threshold; `probabilities` has
    the sigmoid's share of each."""

    text: str
    labels: list[str]
    probabilities: dict[str, float]
    truncated: bool = False

    @property
    def shown(self) -> str:
        """The labels with their probabilities, as a line of the terminal begins."""
        return ", ".join(f"{name} {self.probabilities[name]:.1%}" for name in self.labels) or "(none)"

    @property
    def cells(self) -> dict[str, Any]:
        """A row of a csv file by column, one column for each probability (0 to 1)."""
        shares = {f"probability_{name}": f"{value:.6f}" for name, value in self.probabilities.items()}
        return {"text": self.text, "labels": "|".join(self.labels), **shares}


class MultiLabelClassifier(TextReader):
    """A trained model, merged and ready."""

    def __init__(self, trained: Trained, encoder: TextEncoder, label_names: Sequence[str], threshold: float):
        super().__init__(trained, encoder)
        self.labels, self.threshold = list(label_names), threshold

    def predict(self, texts: Sequence[TextPair]) -> list[MultiLabelPrediction]:
        """One prediction a text; a pair of texts is a tuple."""
        examples, features, outputs = self.read(texts)
        found = []
        for example, feature, row in zip(examples, features, outputs.double().sigmoid().tolist(), strict=True):
            shares = dict(zip(self.labels, row, strict=True))
            said = [name for name, share in shares.items() if share >= self.threshold]
            found.append(MultiLabelPrediction(example.text, said, shares, feature.truncated))
        return found
