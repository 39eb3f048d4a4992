"""Texts, or pairs of texts, as token ids and batches, for models with a head that reads a whole text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..types import IGNORE_INDEX, Batch, Encoded, Example, Features
from .lengths import of_like_length, rounded_up

ENCODE_CHUNK = 1_000
SCORE_TOKENS = 4_096
"""The most padded tokens of one forward pass without gradients."""

LabelsOf = Callable[[Example], list[int] | list[float]]
"""A function from an example to what is learned of it, as `Features.labels` holds it."""


def nothing_to_learn(example: Example) -> list[int]:
    """Labels of a text that is only read."""
    return [IGNORE_INDEX]


@dataclass(frozen=True)
class TextEncoder:
    """Texts as token ids: a tokenizer, and the longest text in tokens (`max_length`)."""

    tokenizer: Any
    max_length: int

    def encode(self, examples: Sequence[Example], labels_of: LabelsOf = nothing_to_learn) -> Encoded:
        """Token ids with the tokenizer's special tokens, truncated to `max_length` (said in `truncated`).

        One Features an example, in their order; none is skipped.
        """
        features: dict[int, Features] = {}
        singles = [row for row, example in enumerate(examples) if example.text_pair is None]
        pairs = [row for row, example in enumerate(examples) if example.text_pair is not None]
        for group in (singles, pairs):  # a single text has no second separator, whatever stands beside it
            for start in range(0, len(group), ENCODE_CHUNK):
                rows = group[start : start + ENCODE_CHUNK]
                features.update(zip(rows, self._encode_chunk([examples[row] for row in rows], labels_of), strict=True))
        return Encoded([features[row] for row in range(len(examples))], [])

    def _encode_chunk(self, examples: Sequence[Example], labels_of: LabelsOf) -> list[Features]:
        """One Features an example; all of them are pairs, or none."""
        encoded = self._tokenize(examples, truncation=True)
        token_types = encoded.get("token_type_ids")
        full = [i for i, ids in enumerate(encoded["input_ids"]) if len(ids) >= self.max_length]
        whole = self._tokenize([examples[i] for i in full], truncation=False)["input_ids"] if full else []
        cut = {i for i, ids in zip(full, whole, strict=True) if len(ids) > self.max_length}
        return [
            Features(
                # GPT-2's tokenizer makes nothing of an empty text; a model needs something to read.
                input_ids=encoded["input_ids"][i] or [self.tokenizer.pad_token_id],
                labels=labels_of(example),
                row=example.row,
                token_type_ids=token_types[i] if token_types else None,
                truncated=i in cut,
            )
            for i, example in enumerate(examples)
        ]

    def _tokenize(self, examples: Sequence[Example], truncation: bool) -> Any:
        """What the tokenizer makes of the texts; all of them are pairs, or none: a text alone needs no token types."""
        pairs = [example.text_pair for example in examples if example.text_pair is not None]
        return self.tokenizer(
            [example.text for example in examples],
            pairs or None,
            truncation=truncation,
            max_length=self.max_length if truncation else None,
            return_token_type_ids=None if pairs else False,
            return_attention_mask=False,
            verbose=False,
        )

    def padded_length(self, num_tokens: int) -> int:
        """T, in tokens, for a batch whose longest text has `num_tokens`: rounded up, within `max_length`."""
        return rounded_up(num_tokens, self.max_length)

    def collate(self, features: Sequence[Features]) -> Batch:
        """Ids (B, T), T the longest of these features, rounded up. Padding is masked by position, never by token id."""
        length = self.padded_length(max(len(feature) for feature in features))
        ids = torch.full((len(features), length), self.tokenizer.pad_token_id, dtype=torch.long)
        mask = torch.zeros(len(features), length, dtype=torch.long)
        types = torch.zeros(len(features), length, dtype=torch.long)
        for i, feature in enumerate(features):
            ids[i, : len(feature)] = torch.tensor(feature.input_ids)
            mask[i, : len(feature)] = 1
            if feature.token_type_ids is not None:
                types[i, : len(feature)] = torch.tensor(feature.token_type_ids)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if any(feature.token_type_ids is not None for feature in features):
            inputs["token_type_ids"] = types
        return Batch(inputs, label_tensor(features), [feature.row for feature in features], length)

    def outputs(self, model: Any, features: Sequence[Features], precision: Any) -> torch.Tensor:
        """The head's outputs (N, C), fp32, on the CPU, in the order of `features`. `model` is in eval mode."""
        if not features:
            return torch.empty(0, model.config.num_labels)
        lengths = [len(feature) for feature in features]
        order: list[int] = []
        parts: list[torch.Tensor] = []
        for rows in of_like_length(lengths, self.padded_length, SCORE_TOKENS):
            batch = self.collate([features[row] for row in rows]).to(precision.device)
            with torch.inference_mode(), precision.autocast():
                parts.append(model(**batch.inputs).logits.float().cpu())
            order += rows
        found = torch.cat(parts)
        in_order = torch.empty_like(found)
        in_order[torch.tensor(order)] = found
        return in_order


def label_tensor(features: Sequence[Features]) -> torch.Tensor:
    """Labels (B,), or (B, C) where several things are learned of each text."""
    labels = torch.tensor([feature.labels for feature in features])
    return labels[:, 0] if labels.shape[1] == 1 else labels
