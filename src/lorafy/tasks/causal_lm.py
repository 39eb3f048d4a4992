"""Causal language modelling: each target token from the tokens before it; by default the answers alone are targets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from ..prompt import Piece, Renderer
from ..types import (
    IGNORE_INDEX,
    Batch,
    Conversation,
    DataError,
    Encoded,
    Features,
    LossOutput,
    Message,
    Problem,
    Skipped,
)

LENGTH_MULTIPLE = 16
"""As for classification: few shapes are faster than exact ones."""
SCORE_TOKENS = 2_048
"""Padded tokens of one forward without gradients."""
LOGITS_BYTES = 2**30
"""For the logits of one micro-batch, of 10 bytes each: bf16, their fp32 copy and its gradient."""
PROBE_EXAMPLES, PROBE_POSITIONS, PROBE_LOGITS = 4, 4, 4_096
"""A vocabulary has up to 150,000 logits a position: the probe keeps some."""


@dataclass(frozen=True)
class CausalLM:
    """The task with what it needs of the model: renderer (with tokenizer), longest sequence to train on, longest that
    the model reads, size of the vocabulary."""

    renderer: Renderer
    max_length: int
    context_length: int
    vocab_size: int
    train_on_prompt: bool = False
    name: str = "causal_lm"
    best_metric: str = "loss"

    @property
    def tokenizer(self) -> Any:
        return self.renderer.tokenizer

    @property
    def max_tokens(self) -> int:
        return max(self.max_length, LOGITS_BYTES // (10 * self.vocab_size))

    def encode(self, examples: Sequence[Conversation]) -> Encoded:
        """A conversation becomes one sequence, or one for each answer (see Renderer.sequences).

        What is longer than `max_length` loses its oldest turns, then the end of its question, never its answer; a
        plain text is cut into several sequences. Raises DataError where the template refuses conversations.
        """
        features: list[Features] = []
        skipped: list[Skipped] = []
        refused: list[tuple[int, Problem]] = []
        for example in examples:
            try:
                found = self._encode(example)
            except DataError as error:
                refused.append((example.row, error.problems[0]))
                continue
            for feature in found:
                if feature is None:
                    reason = f"its answer alone does not fit into {self.max_length} tokens"
                    skipped.append(Skipped(example.row, reason))
                else:
                    features.append(feature)
        if refused:
            row, problem = refused[0]
            rows = f"row {row} of {examples[0].source}; {len(refused):,} of {len(examples):,} rows are like that"
            raise DataError(Problem(problem.where, f"{problem.message} ({rows})", problem.fix))
        return Encoded(features, skipped)

    def _encode(self, example: Conversation) -> list[Features | None]:
        if example.messages[0].role == "text":
            return self._plain_text(example)
        sequences = self.renderer.sequences(example.messages)
        encoded = [self._features(pieces, example.row) for pieces in sequences]
        if all(len(feature) <= self.max_length for feature in encoded):
            return list(encoded)
        ends = [index for index, message in enumerate(example.messages) if message.role == "assistant"]
        return [self._fitted(example.messages[: end + 1], example.row) for end in ends]

    def _features(self, pieces: Sequence[Piece], row: int, truncated: bool = False) -> Features:
        ids, trained = self.renderer.encode(pieces)
        targets = [True] * len(ids) if self.train_on_prompt else trained
        labels = [token if is_target else IGNORE_INDEX for token, is_target in zip(ids, targets, strict=True)]
        return Features(ids, [IGNORE_INDEX, *labels[1:]], row, truncated=truncated)  # nothing stands before the first

    def _fitted(self, messages: Sequence[Message], row: int) -> Features | None:
        """One answer with as much of what was said before as fits; None where the answer alone is too long."""
        whole = self._last_answer(messages, row)
        if whole is not None:
            return whole
        head = [message for message in messages[:1] if message.role == "system"]
        turns = list(messages[len(head) :])
        while len(turns) > 2:
            turns = turns[2:]
            fitted = self._last_answer([*head, *turns], row, truncated=True)
            if fitted is not None:
                return fitted
        question, answer = turns
        fits, most = None, len(question.content)
        low = 0
        while low <= most:  # the longest beginning of the question that fits
            middle = (low + most) // 2
            feature = self._last_answer(
                [*head, Message("user", question.content[:middle]), answer], row, truncated=True
            )
            if feature is None:
                most = middle - 1
            else:
                fits, low = feature, middle + 1
        return fits

    def _last_answer(self, messages: Sequence[Message], row: int, truncated: bool = False) -> Features | None:
        """One sequence whose only target is the last answer; None where it is too long."""
        pieces = self.renderer.sequences(messages)[-1]
        last = [*(Piece(piece.text, False) for piece in pieces[:-1]), pieces[-1]]
        feature = self._features(last, row, truncated)
        return feature if len(feature) <= self.max_length else None

    def _plain_text(self, example: Conversation) -> list[Features | None]:
        """Each sequence begins with the last token of the one before, so that every token but the first is a target."""
        ids = [*self.tokenizer(example.answer, verbose=False)["input_ids"], self.renderer.end_id]
        starts = range(0, len(ids) - 1, self.max_length - 1)
        parts = [ids[start : start + self.max_length] for start in starts]
        return [Features(part, [IGNORE_INDEX, *part[1:]], example.row) for part in parts]

    def padded_length(self, num_tokens: int) -> int:
        return max(num_tokens, min(-(-num_tokens // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, self.max_length))

    def collate(self, features: Sequence[Features]) -> Batch:
        """Ids (B, T), padded on the right and masked by position. The model gives logits only where some sequence
        has a target: `logits_to_keep` (K,) are those positions, labels (B, K) the tokens that follow them."""
        length = self.padded_length(max(len(feature) for feature in features))
        ids = torch.full((len(features), length), self.tokenizer.pad_token_id, dtype=torch.long)
        mask = torch.zeros(len(features), length, dtype=torch.long)
        following = torch.full((len(features), length), IGNORE_INDEX, dtype=torch.long)
        for i, feature in enumerate(features):
            ids[i, : len(feature)] = torch.tensor(feature.input_ids)
            mask[i, : len(feature)] = 1
            following[i, : len(feature) - 1] = torch.tensor(feature.labels[1:])
        used = (following != IGNORE_INDEX).any(0)
        keep = used.nonzero().flatten()
        # A few positions more, whose labels are ignored, make the head's product one of few shapes.
        spare = (~used).nonzero().flatten()[: -len(keep) % LENGTH_MULTIPLE]
        keep = torch.cat([keep, spare]).sort().values
        inputs = {"input_ids": ids, "attention_mask": mask, "logits_to_keep": keep}
        return Batch(inputs, following[:, keep], [feature.row for feature in features], length)

    def loss(self, model: Any, batch: Batch) -> LossOutput:
        """Cross-entropy SUMMED over the target tokens of `batch`, in fp32."""
        losses, correct = token_losses(model, batch)
        return LossOutput(losses.sum(), correct.sum())

    def measure(self, model: Any, features: Sequence[Features], precision: Any) -> dict[str, float]:
        """Mean loss over the target tokens, its exponential, and the share of tokens predicted right."""
        losses, correct, targets = self.sums(model, features, precision)
        loss = sum(losses) / sum(targets)
        return {"loss": loss, "perplexity": perplexity(loss), "accuracy": sum(correct) / sum(targets)}

    def sums(
        self, model: Any, features: Sequence[Features], precision: Any
    ) -> tuple[list[float], list[int], list[int]]:
        """For each sequence: its targets' losses summed, how many were predicted right, how many there are."""
        order = sorted(range(len(features)), key=lambda index: len(features[index]))
        losses, correct = [0.0] * len(features), [0] * len(features)
        most = min(SCORE_TOKENS, self.max_tokens)
        start = 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end - start + 1) * self.padded_length(len(features[order[end]])) <= most:
                end += 1
            rows = order[start:end]
            batch = self.collate([features[row] for row in rows]).to(precision.device)
            with torch.inference_mode(), precision.autocast():
                batch_losses, batch_correct = token_losses(model, batch)
            for row, loss, hits in zip(
                rows, batch_losses.double().sum(1).tolist(), batch_correct.sum(1).tolist(), strict=True
            ):
                losses[row], correct[row] = loss, hits
            start = end
        return losses, correct, [feature.num_targets for feature in features]

    def rank(self, metrics: Mapping[str, float]) -> list[float]:
        """The lower loss."""
        return [-metrics["loss"]]

    def probe(self, features: Sequence[Features]) -> dict[str, torch.Tensor]:
        batch = self.collate(sorted(features, key=len)[:PROBE_EXAMPLES])
        return {**batch.inputs, "logits_to_keep": batch.inputs["logits_to_keep"][-PROBE_POSITIONS:]}

    def probe_outputs(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits (B, K, about 4,096): evenly spaced entries of the vocabulary."""
        logits = model(**inputs).logits
        return logits[..., :: -(-logits.shape[-1] // PROBE_LOGITS)].float().cpu()


def token_losses(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses (B, K), fp32, zero where there is no target; and whether each target was predicted (B, K)."""
    logits = model(**batch.inputs).logits.float()
    losses = functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="none")
    return losses.view_as(batch.labels), logits.detach().argmax(-1) == batch.labels


def perplexity(loss: float) -> float:
    """exp of a mean loss; what is too great for a float is told as its greatest."""
    return math.exp(min(loss, 700.0))
