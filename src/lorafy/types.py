"""The nouns that every room shares. No torch at import time: `lorafy --help` reads this file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import torch

IGNORE_INDEX = -100
"""The label of a target that takes no part in the loss (torch's cross_entropy default)."""


Label = str | tuple[str, ...] | float | None
"""What a text is labelled with, as its task reads it: one class, several classes, a number; None: nothing."""


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled text, before any tokenizer. `row` is its number in `source`, counted from 1.

    A format leaves `label` as the file has it; the task that learns from it makes a Label of it (`TaskKind.accept`).
    """

    text: str
    label: Any
    source: str
    row: int
    text_pair: str | None = None

    @property
    def content(self) -> tuple[str, str | None, Label]:
        """All that the example says: equal contents are equal data."""
        return self.text, self.text_pair, self.label

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes it belongs to; none where it is labelled with a number or with nothing."""
        return (self.label,) if isinstance(self.label, str) else self.label if isinstance(self.label, tuple) else ()

    @property
    def stratum(self) -> str | None:
        """The class that splits and samples keep in proportion; None where there is no single one."""
        return self.label if isinstance(self.label, str) else None

    @property
    def key(self) -> tuple[str, str | None]:
        """What makes two examples the same text: white space at the ends does not count."""
        return self.text.strip(), None if self.text_pair is None else self.text_pair.strip()


PICTURE_MARK = "\ufffc"
"""Stands in a message's text where a picture belongs: Unicode's object replacement character."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A still picture that a row shows: the file at `path`, or `data`, a file's bytes. `name` is said in messages.

    sha256: of the file's bytes, which is what tells pictures apart. width, height: in pixels, turned as the file says
    that it is to be seen. Empty and 0 until somebody has looked at it (pictures/survey.py).
    """

    name: str
    path: str | None = None
    data: bytes | None = field(default=None, repr=False)
    sha256: str = ""
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class PlacedPicture:
    """A picture among a sequence's tokens: `rows` times `columns` of them, line by line, from place `start` on."""

    picture: Picture
    start: int
    rows: int
    columns: int

    @property
    def num_tokens(self) -> int:
        """How many tokens of the sequence are the picture's."""
        return self.rows * self.columns


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: `role` is system, user or assistant; `text` is the role of a plain text that nobody says.

    pictures: what the message shows, in the order of the PICTURE_MARKs in its content; one mark each. Where there are
    none, the character is text like any other.
    """

    role: str
    content: str
    pictures: tuple[Picture, ...] = ()

    @property
    def digests(self) -> tuple[str, ...]:
        """The pictures by what they show."""
        return tuple(picture.sha256 or picture.name for picture in self.pictures)


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a language model learns from one record: messages whose assistant turns are the answers, or a plain text."""

    messages: tuple[Message, ...]
    source: str
    row: int

    label: ClassVar[None] = None
    classes: ClassVar[tuple[str, ...]] = ()
    stratum: ClassVar[None] = None
    """None, as of an Example without a class: a conversation has no label."""

    @property
    def content(self) -> tuple[tuple[Any, ...], ...]:
        """All that the conversation says and shows: equal contents are equal data."""
        return tuple((message.role, message.content, *message.digests) for message in self.messages)

    @property
    def key(self) -> tuple[str, ...]:
        """What makes two conversations the same question: all before the last answer; of a plain text, all of it."""
        asked = self.messages[:-1] or self.messages
        texts = (f"{message.role}: {message.content.strip()}" for message in asked)
        return (*texts, *(digest for message in asked for digest in message.digests))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All that it shows, in order."""
        return tuple(picture for message in self.messages for picture in message.pictures)

    @property
    def answer(self) -> str:
        """The last message's text."""
        return self.messages[-1].content


@dataclass(frozen=True, slots=True)
class Features:
    """One encoded example.

    labels: of a text, what its task learns of it (the index of its class; 0.0 or 1.0 for each class; a number); of a
        sequence, one for each token (the token itself where it is a target). IGNORE_INDEX among whole numbers, NaN
        among the others: nothing to learn.
    row: its number in the user's file. A conversation may become several sequences of one row.
    """

    input_ids: list[int]
    labels: list[int] | list[float]
    row: int
    token_type_ids: list[int] | None = None
    truncated: bool = False
    pictures: tuple[PlacedPicture, ...] = ()

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def num_targets(self) -> int:
        """How many of the labels take part in the loss."""
        if isinstance(self.labels[0], float):
            return sum(label == label for label in self.labels)
        return len(self.labels) - self.labels.count(IGNORE_INDEX)


@dataclass(frozen=True, slots=True)
class Skipped:
    """An example that cannot be trained on, and why."""

    row: int
    reason: str


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a task makes of examples: every row is kept or skipped for a named reason."""

    features: list[Features]
    skipped: list[Skipped]


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch. `inputs` are (B, T) tensors, the model's keywords; `labels` is (B,) or (B, C) for what texts are
    labelled with, (B, K) for language models (K supervised positions).

    `rows` are the numbers of its examples in the user's file, so that an error can name them. `longest`: tokens of the
    longest sequence, T where they are padded. `pictures`: those of its sequences, in order, where the fast path has
    still to look at them.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    rows: list[int]
    longest: int
    pictures: Sequence[PlacedPicture] = ()

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()}
        return replace(self, inputs=inputs, labels=self.labels.to(device, non_blocking=True))


@dataclass(frozen=True, slots=True)
class LossOutput:
    """What an objective makes of one micro-batch: sums over its targets, never means.

    loss_sum: scalar, fp32, the SUM of the targets' losses.
    score_sum: scalar, the SUM of what the objective counts beside them (`Objective.score`): for cross-entropies the
        targets whose best-scored class or token is the label.
    """

    loss_sum: torch.Tensor
    score_sum: torch.Tensor


@dataclass(frozen=True, slots=True)
class StepStats:
    """One optimizer step, over all its micro-batches and all processes. `loss` and `score` are means over targets."""

    step: int
    epoch: float
    loss: float
    score: float
    learning_rate: float
    grad_norm: float
    num_examples: int
    num_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Finding:
    """What one pre-flight check saw. An `error` refuses the run, a `warning` and a `note` are shown."""

    check: str
    level: str
    message: str
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake of the user's: where it stands, what is wrong, what to do."""

    where: str
    message: str
    fix: str | None = None

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}"
        return f"{text}\n    -> {self.fix}" if self.fix else text


class UserError(Exception):
    """The user's mistakes, all of them at once. The command line prints them and exits with 2."""

    def __init__(self, problems: Problem | Iterable[Problem]):
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        assert self.problems, "a UserError needs at least one problem"
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ConfigError(UserError):
    """A recipe, an override or an argument that cannot be used."""


class DataError(UserError):
    """Data that cannot be used."""


class ModelError(UserError):
    """A model, tokenizer or adapter that cannot be loaded or used."""


class RunError(UserError):
    """A run directory in a state that the verb cannot use."""


class NonFiniteLoss(UserError):
    """The loss or its gradient became NaN or infinite. No weight was changed by that step."""


class Interrupted(Exception):
    """SIGINT or SIGTERM, after a checkpoint was written."""

    def __init__(self, signal_number: int, message: str):
        self.signal_number = signal_number
        super().__init__(message)
