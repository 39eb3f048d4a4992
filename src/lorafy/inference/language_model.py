"""A language model to talk to, with the base that it was trained from beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..config.schema import GenerationSection
from ..encoding.conversations import ConversationEncoder
from ..types import ConfigError, Message, Problem
from .chat import Chat
from .generate import Answer, generate
from .showing import Shown, shown_to, user_turn
from .trained import Speakers, Trained

Prompt = str | Sequence[Message]


class LanguageModel:
    """A language model, ready to answer: `load("runs/daily-1").generate(["a question"])`.

    The adapter stays beside the base's weights, so that both can be asked; what is trained is what answers. A
    vision-language model takes pictures too: `generate(["What is this?"], pictures=[["cat.jpg"]])`.
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

    @property
    def sees(self) -> bool:
        """Whether it can be shown pictures."""
        return self._encoder.sees

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        pictures: Sequence[Sequence[Shown]] | None = None,
        base: bool = False,
        **settings: Any,
    ) -> list[Answer]:
        """An answer to each prompt (a question, or messages that end with one). settings: `generation` keys to
        change.

        pictures: for each prompt its own, as paths; they stand where <image> stands in the question, else before it.
        Messages have theirs in them: `lorafy.inference.showing.user_turn("What is this?", ["cat.jpg"])` makes one.
        Raises DataError with every picture that cannot be used.
        """
        questions = _questions(prompts, [()] * len(prompts) if pictures is None else pictures)
        return self._generate(questions, base, GenerationSection(**(self._settings.model_dump() | settings)))

    def chat(self, *, system: str | None = None, base: bool = False) -> Chat:
        """A conversation that remembers; `ask(question, pictures=["cat.jpg"])` shows pictures."""
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
        looked_at = shown_to(self._encoder, questions)
        with self._speakers(base) as model:
            return generate(
                model, self._encoder, looked_at, settings, self._precision, seed=self._seed, on_text=on_text
            )


def _questions(prompts: Sequence[Prompt], pictures: Sequence[Sequence[Shown]]) -> list[list[Message]]:
    """Each prompt as messages. Raises ConfigError where the pictures are not as many lists as there are prompts, or
    stand beside messages."""
    if len(pictures) != len(prompts):
        counts = f"{len(pictures)} lists of pictures for {len(prompts)} prompts"
        raise ConfigError(Problem("pictures", counts, "give a list for each prompt, [] where it has none"))
    found = []
    for prompt, shown in zip(prompts, pictures, strict=True):
        if not isinstance(prompt, str) and shown:
            raise ConfigError(Problem("pictures", "beside a prompt that is messages", "put them into its messages"))
        found.append([user_turn(prompt, shown)] if isinstance(prompt, str) else list(prompt))
    return found
