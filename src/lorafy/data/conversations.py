"""What a language model learns from: questions with answers, and plain texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from ..config.schema import RunConfig
from ..contracts import Settled
from ..types import Conversation, DataError, Features, Problem
from .rows import rows_without

WITHOUT = {"assistant": "an answer", "user": "a question", "system": "a system message", "text": "text"}
NO_PICTURES = "pictures need a vision-language model; a language model learns from text alone"
NO_TURNS = "text"
"""The format without turns: nobody asks, nobody answers."""


class ConversationRecords:
    """Conversations; what is learned of each lies in it, not in a label beside it."""

    formats: Sequence[str] = ("chat", "completion", "text")
    needs_writer = True
    row_by_row = True
    is_default = True
    unit = "question"
    loses = "lose their oldest turns or the end of the question (answers stay whole)"

    def uses(self, form: str) -> Sequence[str]:
        """Keys of the data section that are about turns."""
        return () if form == NO_TURNS else ("system", "thinking", "too_long", "train_on_prompt")

    def suits(self, examples: Sequence[Conversation], config: RunConfig) -> str | None:
        """None: these tasks are the default for their formats; what else a format may mean says so itself."""
        return None

    def accept(self, example: Conversation, config: RunConfig) -> Conversation:
        """The conversation as it is: it has no label to read. Raises DataError for pictures."""
        if example.pictures:
            message = f"{NO_PICTURES} (row {example.row})"
            fix = "take one, such as Qwen/Qwen3-VL-2B-Instruct, or take pictures and their marks out of the data"
            raise DataError(Problem("model.path", message, fix))
        return example

    def settle(self, splits: dict[str, list[Conversation]], named: Any, config: RunConfig) -> Settled:
        """Names the rows whose messages are blank; there are no classes."""
        problems = []
        for name, examples in splits.items():
            for role, what in WITHOUT.items():
                rows = [e for e in examples if any(m.role == role and not m.content.strip() for m in e.messages)]
                if rows:
                    problems.append(rows_without(name, rows, len(examples), what))
        return Settled([], problems=problems)

    def to_dataset(self, corpus: Any, features: Mapping[str, Sequence[Features]], split: str) -> datasets.Dataset:
        """Labels are tokens, -100 where nothing is learned. `row` is the number in the user's file; one row may have
        become several sequences."""
        ids = datasets.List(datasets.Value("int32"))
        schema = {"input_ids": ids, "attention_mask": datasets.List(datasets.Value("int8")), "labels": ids}
        encoded = features[split]
        columns = {
            "input_ids": [feature.input_ids for feature in encoded],
            "attention_mask": [[1] * len(feature) for feature in encoded],
            "labels": [feature.labels for feature in encoded],
            "row": [feature.row for feature in encoded],
        }
        whole = datasets.Features(schema | {"row": datasets.Value("int32")})
        return datasets.Dataset.from_dict(columns, features=whole)
