"""What every model with a head does with texts: encode them, and ask the head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import torch

from ..encoding.texts import TextEncoder
from ..types import Example, Features
from .trained import Trained

TextPair = str | tuple[str, str]


class Prediction(Protocol):
    """What a model with a head says of one text: a dataclass, whose fields are a record of JSON."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def text(self) -> str:
        """The text that was read; of a pair, the first."""

    @property
    def truncated(self) -> bool:
        """Whether only the text's start was read."""

    @property
    def shown(self) -> str:
        """What is predicted, as a line of the terminal begins."""

    @property
    def cells(self) -> dict[str, Any]:
        """A row of a csv file: text by column."""


class TextReader:
    """A trained model, merged and on its device."""

    def __init__(self, trained: Trained, encoder: TextEncoder):
        trained.merge()
        trained.place()
        self._trained, self._encoder = trained, encoder

    def read(self, texts: Sequence[TextPair]) -> tuple[list[Example], list[Features], torch.Tensor]:
        """Examples, features and the head's outputs (N, C), in the order of the texts; a pair of texts is a tuple."""
        pairs = [(text, None) if isinstance(text, str) else text for text in texts]
        examples = [Example(first, None, "input", row, second) for row, (first, second) in enumerate(pairs, start=1)]
        features = self._encoder.encode(examples).features
        return examples, features, self._encoder.outputs(self._trained.model, features, self._trained.precision)
