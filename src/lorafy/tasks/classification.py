"""Sequence classification: one label a text (or a pair of texts), cross-entropy over the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.metrics import f1_score
from torch.nn import functional

from ..types import IGNORE_INDEX, Batch, Encoded, Example, Features, LossOutput

ENCODE_CHUNK = 1_000
LENGTH_MULTIPLE = 16
"""oneDNN compiles a primitive for every shape it has not seen: few lengths are faster than exact ones (docs/log.md)."""
SCORE_TOKENS = 4_096
"""Padded tokens of one forward without gradients."""
PROBE_EXAMPLES = 16


@dataclass(frozen=True)
class Classification:
    """The task with what it needs of the model: tokenizer, label names in index order, the longest text in tokens."""

    tokenizer: Any
    label_names: Sequence[str]
    max_length: int
    name: str = "classification"
    best_metric: str = "accuracy"
    max_tokens: int | None = None

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Token ids with the tokenizer's special tokens, truncated to `max_length` (said in `truncated`).

        One Features an example, in their order; none is skipped.
        """
        features: dict[int, Features] = {}
        singles = [row for row, example in enumerate(examples) if example.text_pair is None]
        pairs = [row for row, example in enumerate(examples) if example.text_pair is not None]
        for group in (singles, pairs):  # a single text has no second separator, whatever stands beside it
            for start in range(0, len(group), ENCODE_CHUNK):
                rows = group[start : start + ENCODE_CHUNK]
                features.update(zip(rows, self._encode_chunk([examples[row] for row in rows]), strict=True))
        return Encoded([features[row] for row in range(len(examples))], [])

    def _encode_chunk(self, examples: Sequence[Example]) -> list[Features]:
        """All of them pairs, or none."""
        index_of = {name: index for index, name in enumerate(self.label_names)}
        encoded = self._tokenize(examples, truncation=True)
        token_types = encoded.get("token_type_ids")
        full = [i for i, ids in enumerate(encoded["input_ids"]) if len(ids) >= self.max_length]
        whole = self._tokenize([examples[i] for i in full], truncation=False)["input_ids"] if full else []
        cut = {i for i, ids in zip(full, whole, strict=True) if len(ids) > self.max_length}
        return [
            Features(
                # GPT-2's tokenizer makes nothing of an empty text; a model needs something to read.
                input_ids=encoded["input_ids"][i] or [self.tokenizer.pad_token_id],
                labels=[IGNORE_INDEX if example.label is None else index_of[example.label]],
                row=example.row,
                token_type_ids=token_types[i] if token_types else None,
                truncated=i in cut,
            )
            for i, example in enumerate(examples)
        ]

    def _tokenize(self, examples: Sequence[Example], truncation: bool) -> Any:
        """All of them pairs, or none: a text alone needs no token types."""
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
        """T for a batch whose longest text has so many tokens: rounded up, within `max_length`."""
        return max(num_tokens, min(-(-num_tokens // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, self.max_length))

    def collate(self, features: Sequence[Features]) -> Batch:
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
        labels = torch.tensor([label for feature in features for label in feature.labels])
        return Batch(inputs, labels, [feature.row for feature in features], length)

    def scores(self, model: Any, features: Sequence[Features], precision: Any) -> torch.Tensor:
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
            batch = self.collate([features[row] for row in rows]).to(precision.device)
            with torch.inference_mode(), precision.autocast():
                parts.append(model(**batch.inputs).logits.float().cpu())
            start = end
        scores = torch.empty(len(features), len(self.label_names))
        if parts:
            scores[torch.tensor(order)] = torch.cat(parts)
        return scores

    def loss(self, model: Any, batch: Batch) -> LossOutput:
        """Cross-entropy SUMMED over the examples of `batch`, in fp32."""
        return summed_loss(model(**batch.inputs).logits.float(), batch.labels)

    def measure(self, model: Any, features: Sequence[Features], precision: Any) -> dict[str, float]:
        """Mean loss, accuracy, macro F1."""
        return quick_metrics(self.scores(model, features, precision), class_indices(features))

    def rank(self, metrics: Mapping[str, float]) -> list[float]:
        """Accuracy first, the lower loss on a tie: small validation sets tie often."""
        return [metrics["accuracy"], -metrics["loss"]]

    def probe(self, features: Sequence[Features]) -> dict[str, torch.Tensor]:
        return self.collate(features[:PROBE_EXAMPLES]).inputs

    def probe_outputs(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits (B, num_labels)."""
        return model(**inputs).logits.float().cpu()


def summed_loss(logits: torch.Tensor, labels: torch.Tensor) -> LossOutput:
    """Cross-entropy SUMMED over examples. logits: (B, C), fp32; labels: (B,)."""
    loss_sum = functional.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORE_INDEX)
    return LossOutput(loss_sum, (logits.detach().argmax(-1) == labels).sum())


def class_indices(features: Sequence[Features]) -> torch.Tensor:
    """(N,)"""
    return torch.tensor([feature.labels[0] for feature in features])


def quick_metrics(scores: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """What the training loop asks for: mean loss, accuracy, macro F1. scores: logits (N, C); labels: (N,)."""
    predicted = scores.argmax(-1)
    return {
        "loss": functional.cross_entropy(scores.double(), labels).item(),
        "accuracy": (predicted == labels).double().mean().item(),
        "f1_macro": float(f1_score(labels, predicted, average="macro", zero_division=0)),
    }
