"""Texts in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...inference.read_texts import TextPair, TextReader


@dataclass(frozen=True)
class ValuePrediction:
    """The predicted number of one text: `value`, in the unit of the data."""

    text: str
    value: float
    truncated: bool = False

    @property
    def shown(self) -> str:
        """The number, as a line of the terminal begins."""
        return f"{self.value:.4g}"

    @property
    def cells(self) -> dict[str, Any]:
        """A row of a csv file: text and value by column."""
        return {"text": self.text, "value": f"{self.value:.6g}"}


class Regressor(TextReader):
    """A trained model, merged and ready."""

    def predict(self, texts: Sequence[TextPair]) -> list[ValuePrediction]:
        """One prediction a text; a pair of texts is a tuple."""
        examples, features, outputs = self.read(texts)
        return [
            ValuePrediction(example.text, row[0], feature.truncated)
            for example, feature, row in zip(examples, features, outputs.double().tolist(), strict=True)
        ]
