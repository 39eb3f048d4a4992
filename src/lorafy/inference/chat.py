"""A conversation with a model: history, system message, and the base model's answer to the same question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from ..config.schema import GenerationSection
from ..encoding.conversations import ConversationEncoder
from ..models.precision import Precision
from ..types import Message
from .generate import Answer, generate
from .showing import Shown, shown_to, user_turn


@dataclass
class Chat:
    """A conversation that remembers. `history` holds the messages so far, with their pictures; `num_forgotten` counts
    the turns that no longer fit into the context. speakers: gives the model that answers, the tuned one or (True) the
    base; both in eval mode on the device."""

    speakers: Callable[[bool], AbstractContextManager[Any]]
    encoder: ConversationEncoder
    settings: GenerationSection
    precision: Precision
    seed: int = 0
    system: str | None = None
    use_base: bool = False
    history: list[Message] = field(default_factory=list)
    num_forgotten: int = 0

    @property
    def sees(self) -> bool:
        """Whether it can be shown pictures."""
        return self.encoder.sees

    def ask(
        self, question: str, on_text: Callable[[str], None] | None = None, pictures: Sequence[Shown] = ()
    ) -> Answer:
        """Answers and remembers. pictures: what the question shows, as paths: where <image> stands in it, else before
        it.

        Raises DataError where the question alone is longer than the model reads, or a picture cannot be used; the
        conversation is then as it was.
        """
        (turn,) = shown_to(self.encoder, [[user_turn(question, pictures)]])
        return self._answer([*self.history, *turn], on_text)

    def ask_again(self, on_text: Callable[[str], None] | None = None) -> Answer | None:
        """Another answer to the last question, in place of the last one; None where nothing was asked yet."""
        if not self.history:
            return None
        return self._answer(self.history[:-1], on_text)

    def reset(self) -> None:
        """Forgets all that was said; the system message and the settings stay."""
        self.history, self.num_forgotten = [], 0

    def _answer(self, messages: list[Message], on_text: Callable[[str], None] | None) -> Answer:
        kept = self._within_context(messages)
        with self.speakers(self.use_base) as model:
            (answer,) = generate(
                model,
                self.encoder,
                [self._with_system(kept)],
                self.settings,
                self.precision,
                seed=self.seed + len(kept),
                on_text=on_text,
            )
        self.history = [*kept, Message("assistant", answer.text)]
        self.num_forgotten += (len(messages) - len(kept)) // 2
        return answer

    def _with_system(self, messages: list[Message]) -> list[Message]:
        return messages if self.system is None else [Message("system", self.system), *messages]

    def _within_context(self, messages: list[Message]) -> list[Message]:
        """The messages without the oldest turns, where question and a full answer would not fit."""
        room = max(self.encoder.context_length - self.settings.max_new_tokens, self.encoder.context_length // 2)
        while len(messages) > 2 and len(self.encoder.ask(self._with_system(messages))) > room:
            messages = messages[2:]
        return messages
