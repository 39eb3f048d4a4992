"""A language model to talk to, with the base that it was trained from beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..config.schema import GenerationSection
from ..encoding.conversations import ConversationEncoder
from ..types import Message
from .chat import Chat
from .generate import Answer, generate
from .trained import Speakers, Trained

Prompt = str | Sequence[Message]


class LanguageModel:
    """A language model, ready to answer: `load("runs/daily-1").generate(["a question"])`.

    The adapter stays beside the base's weights, so that both can be asked; what is trained is what answers.
    """

    def __init__(
        self, trained: Trained, encoder: ConversationEncoder, settings: GenerationSection | None = None, seed: int = 0
    ):
        trained.settle()
        self._speakers, self._encoder, self._precision = Speakers(trained), encoder, trained.precision
        self._settings, self._seed = settings or GenerationSection(), seed

    @property
    def has_base(self) -> bool:
        """Whether its base can be asked too; False for a base model itself, which has nothing to be compared with."""
        return self._speakers.has_base

    def generate(self, prompts: Sequence[Prompt], *, base: bool = False, **settings: Any) -> list[Answer]:
        """An answer to each prompt (a question, or messages that end with one). settings: `generation` keys to
        change."""
        questions = [[Message("user", prompt)] if isinstance(prompt, str) else list(prompt) for prompt in prompts]
        return self._generate(questions, base, GenerationSection(**(self._settings.model_dump() | settings)))

    def chat(self, *, system: str | None = None, base: bool = False) -> Chat:
        """A conversation that remembers."""
        return Chat(self._speakers, self._encoder, self._settings, self._precision, self._seed, system, use_base=base)

    def stream(self, messages: Sequence[Message], on_text: Callable[[str], None], *, base: bool = False) -> Answer:
        """One answer, handed to `on_text` while it is written."""
        return self._generate([messages], base, self._settings, on_text)[0]

    def _generate(
        self,
        questions: Sequence[Sequence[Message]],
        base: bool,
        settings: GenerationSection,
        on_text: Callable[[str], None] | None = None,
    ) -> list[Answer]:
        with self._speakers(base) as model:
            return generate(
                model, self._encoder, questions, settings, self._precision, seed=self._seed, on_text=on_text
            )
