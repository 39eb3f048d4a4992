"""Conversations as token ids and batches: which tokens are given, and which are the targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..types import IGNORE_INDEX, Batch, Conversation, DataError, Encoded, Features, Message, Problem, Skipped
from .lengths import LENGTH_MULTIPLE, rounded_up
from .prompt import Piece, Renderer


@dataclass(frozen=True)
class ConversationEncoder:
    """The prompt renderer (with its tokenizer), the longest sequence to train on, and the longest that the model reads;
    all in tokens. By default the answers alone are targets."""

    renderer: Renderer
    max_length: int
    context_length: int
    train_on_prompt: bool = False

    sees: ClassVar[bool] = False
    """Whether messages may show pictures."""

    @property
    def tokenizer(self) -> Any:
        """The renderer's tokenizer."""
        return self.renderer.tokenizer

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
            features += [feature for feature in found if isinstance(feature, Features)]
            skipped += [Skipped(example.row, reason) for reason in found if isinstance(reason, str)]
        if refused:
            row, problem = refused[0]
            rows = f"row {row} of {examples[0].source}; {len(refused):,} of {len(examples):,} rows are like that"
            raise DataError(Problem(problem.where, f"{problem.message} ({rows})", problem.fix))
        return Encoded(features, skipped)

    def _encode(self, example: Conversation) -> list[Features | str]:
        """Its sequences; for one that cannot be trained on, the reason."""
        if example.messages[0].role == "text":
            return self._plain_text(example)
        sequences = self.renderer.sequences(example.messages)
        encoded = [self._features(pieces, example.row) for pieces in sequences]
        if all(len(feature) <= self.max_length for feature in encoded):
            return list(encoded)
        ends = [index for index, message in enumerate(example.messages) if message.role == "assistant"]
        fitted = [self._fitted(example.messages[: end + 1], example.row) for end in ends]
        return [
            f"its answer alone does not fit into {self.max_length} tokens" if one is None else one for one in fitted
        ]

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

    def _plain_text(self, example: Conversation) -> list[Features | str]:
        """Each sequence begins with the last token of the one before, so that every token but the first is a target."""
        ids = [*self.tokenizer(example.answer, verbose=False)["input_ids"], self.renderer.end_id]
        starts = range(0, len(ids) - 1, self.max_length - 1)
        parts = [ids[start : start + self.max_length] for start in starts]
        return [Features(part, [IGNORE_INDEX, *part[1:]], example.row) for part in parts]

    def ask(self, messages: Sequence[Message]) -> Features:
        """The sequence that an answer to these messages begins after; nothing in it is a target.

        Raises DataError for pictures that it does not see.
        """
        shown = [picture.name for message in messages for picture in message.pictures]
        if shown:
            fix = "ask a vision-language model, such as Qwen/Qwen3-VL-2B-Instruct"
            raise DataError(Problem(shown[0], "this model sees no pictures: it reads text alone", fix))
        ids = self.renderer.question_ids(messages)
        return Features(ids, [IGNORE_INDEX] * len(ids), row=0)

    def prompts(self, questions: Sequence[Features]) -> dict[str, torch.Tensor]:
        """A model's inputs for writing on: ids and mask (B, T), padded on the left."""
        longest = max(len(question) for question in questions)
        ids = torch.full((len(questions), longest), self.tokenizer.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, question in enumerate(questions):
            ids[row, longest - len(question) :] = torch.tensor(question.input_ids)
            mask[row, longest - len(question) :] = 1
        return {"input_ids": ids, "attention_mask": mask}

    def padded_length(self, num_tokens: int) -> int:
        """T, in tokens, for a batch whose longest sequence has `num_tokens`: rounded up, within `max_length`."""
        return rounded_up(num_tokens, self.max_length)

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
