"""Sequence classification: one label a text (or a pair of texts), cross-entropy over the classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from ..types import IGNORE_INDEX, Batch, Example, Features, LossOutput

ENCODE_CHUNK = 1_000
LENGTH_MULTIPLE = 16
"""oneDNN compiles a primitive for every shape it has not seen: few lengths are faster than exact ones (docs/log.md)."""
SCORE_TOKENS = 4_096
"""Padded tokens of one forward without gradients."""


@dataclass(frozen=True)
class Classification:
    """The task with what it needs of the model: tokenizer, label names in index order, the longest text in tokens."""

    tokenizer: Any
    label_names: Sequence[str]
    max_length: int
    name: str = "classification"

    def encode(self, examples: Sequence[Example]) -> list[Features]:
        """Token ids with the tokenizer's special tokens, truncated to `max_length` (said in `truncated`)."""
        features: dict[int, Features] = {}
        singles = [row for row, example in enumerate(examples) if example.text_pair is None]
        pairs = [row for row, example in enumerate(examples) if example.text_pair is not None]
        for group in (singles, pairs):  # a single text has no second separator, whatever stands beside it
            for start in range(0, len(group), ENCODE_CHUNK):
                rows = group[start : start + ENCODE_CHUNK]
                features.update(zip(rows, self._encode_chunk([examples[row] for row in rows]), strict=True))
        return [features[row] for row in range(len(examples))]

    def _encode_chunk(self, examples: Sequence[Example]) -> list[Features]:
        """All of them pairs, or none."""
        index_of = {name: index for index, name in enumerate(self.label_names)}
        encoded = self._tokenize(examples, truncation=True)
        token_types = None if examples[0].text_pair is None else encoded.get("token_type_ids")
        full = [i for i, ids in enumerate(encoded["input_ids"]) if len(ids) >= self.max_length]
        whole = self._tokenize([examples[i] for i in full], truncation=False)["input_ids"] if full else []
        cut = {i for i, ids in zip(full, whole, strict=True) if len(ids) > self.max_length}
        return [
            Features(
                # GPT-2's tokenizer makes nothing of an empty text; a model needs something to read.
                input_ids=encoded["input_ids"][i] or [self.tokenizer.pad_token_id],
                label=IGNORE_INDEX if example.label is None else index_of[example.label],
                token_type_ids=token_types[i] if token_types else None,
                truncated=i in cut,
            )
            for i, example in enumerate(examples)
        ]

    def _tokenize(self, examples: Sequence[Example], truncation: bool) -> Any:
        pairs = [example.text_pair for example in examples if example.text_pair is not None]
        return self.tokenizer(
            [example.text for example in examples],
            pairs or None,
            truncation=truncation,
            max_length=self.max_length if truncation else None,
            return_attention_mask=False,
            verbose=False,
        )

    def padded_length(self, num_tokens: int) -> int:
        """T for a batch whose longest text has so many tokens: rounded up, within `max_length`."""
        return max(num_tokens, min(-(-num_tokens // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, self.max_length))

    def collate(self, features: Sequence[Features], rows: Sequence[int]) -> Batch:
        """(B, T) with T the longest of these features, rounded up. Padding is masked by position, never by token id."""
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
        return Batch(inputs, torch.tensor([feature.label for feature in features]), list(rows))

    def scores(
        self,
        model: Any,
        features: Sequence[Features],
        *,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager],
    ) -> torch.Tensor:
        """Logits (N, num_labels), fp32, on the CPU, in the order of `features`. `model` should be in eval mode."""
        order = sorted(range(len(features)), key=lambda index: len(features[index]))
        parts: list[torch.Tensor] = []
        start = 0
        while start < len(order):
            end = start + 1
            while (
                end < len(order) and (end - start + 1) * self.padded_length(len(features[order[end]])) <= SCORE_TOKENS
            ):
                end += 1
            rows = order[start:end]
            batch = self.collate([features[row] for row in rows], rows).to(device)
            with torch.inference_mode(), autocast():
                parts.append(model(**batch.inputs).logits.float().cpu())
            start = end
        scores = torch.empty(len(features), len(self.label_names))
        if parts:
            scores[torch.tensor(order)] = torch.cat(parts)
        return scores

    def loss(self, model: Any, batch: Batch) -> LossOutput:
        """Cross-entropy SUMMED over the examples of `batch`, in fp32."""
        logits = model(**batch.inputs).logits.float()
        loss_sum = functional.cross_entropy(logits, batch.labels, reduction="sum", ignore_index=IGNORE_INDEX)
        correct = (logits.detach().argmax(-1) == batch.labels).sum()
        return LossOutput(loss_sum, correct, logits.detach())
