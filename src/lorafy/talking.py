"""A language model to talk to, with the base that it was trained from beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .adapters import files
from .config.schema import GenerationSection
from .inference.chat import Chat
from .inference.generate import Answer, generate
from .tasks.causal_lm import CausalLM
from .trained import Trained, load_original
from .types import Message

Prompt = str | Sequence[Message]


class LanguageModel:
    """Ready to answer: `load("runs/daily-1").generate(["a question"])`.

    The adapter stays beside the base's weights, so that both can be asked; what is trained is what answers.
    """

    def __init__(self, trained: Trained, settings: GenerationSection | None = None, seed: int = 0):
        trained.settle()
        self._trained, self._seed = trained, seed
        self._settings = settings or GenerationSection()
        self._base: Any = None

    @property
    def has_base(self) -> bool:
        """False for a base model itself, which has nothing to be compared with."""
        return self._trained.folder is not None

    def generate(self, prompts: Sequence[Prompt], *, base: bool = False, **settings: Any) -> list[Answer]:
        """An answer to each prompt (a question, or messages that end with one). `settings`: of `generation`."""
        questions = [[Message("user", prompt)] if isinstance(prompt, str) else list(prompt) for prompt in prompts]
        return self._generate(questions, base, GenerationSection(**(self._settings.model_dump() | settings)))

    def chat(self, *, system: str | None = None, base: bool = False) -> Chat:
        """A conversation that remembers."""
        task, precision = self._task, self._trained.precision
        return Chat(self._speaker, task, self._settings, precision, self._seed, system, use_base=base)

    def stream(self, messages: Sequence[Message], on_text: Callable[[str], None], *, base: bool = False) -> Answer:
        """One answer, handed to `on_text` while it is written."""
        return self._generate([messages], base, self._settings, on_text)[0]

    @property
    def _task(self) -> CausalLM:
        assert isinstance(self._trained.task, CausalLM), "only a language model talks"
        return self._trained.task

    def _generate(
        self,
        questions: Sequence[Sequence[Message]],
        base: bool,
        settings: GenerationSection,
        on_text: Callable[[str], None] | None = None,
    ) -> list[Answer]:
        model = self._speaker(base)
        return generate(
            model, self._task, questions, settings, self._trained.precision, seed=self._seed, on_text=on_text
        )

    def _speaker(self, base: bool) -> Any:
        trained = self._trained
        if trained.manifest is not None and trained.manifest.method == "full":
            return self._loaded_base() if base else trained.model
        files.set_lora_enabled(trained.model, not base)
        return trained.model

    def _loaded_base(self) -> Any:
        """Full fine-tuning changed every weight: its base is another model, loaded when it is first asked."""
        if self._base is None:
            self._base = load_original(self._trained)
        return self._base
