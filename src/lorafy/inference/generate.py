"""Conversations in, answers out: batches padded on the left, stops at the end of the answer, loops noticed."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from ..config.schema import GenerationSection
from ..encoding.conversations import ConversationEncoder
from ..encoding.prompt import Renderer
from ..machine.quiet import quiet_transformers
from ..models.precision import Precision
from ..types import DataError, Features, Message, Problem

BATCH_SIZE = 16
LONGEST_PERIOD = 64
LOOP_REPEATS, LOOP_TOKENS = 4, 48
"""A loop is so many equal stretches, and at least so many tokens of them: a table's ruler is shorter, a real one never
ends."""

NEUTRAL = {"num_beams": 1, "min_length": 0, "min_new_tokens": 0, "no_repeat_ngram_size": 0, "suppress_tokens": []}
NEUTRAL_SAMPLING = {"min_p": 0.0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0}
"""Settings of generate() that switch a feature off. What is not said takes the model's own value: a
generation_config.json with beams would change greedy answers."""


@dataclass(frozen=True)
class Answer:
    """What a model wrote: `text`, unedited. `ended`: it came to its end by itself; else it was stopped in a loop
    (`looped`), where the model reads no more (`full`), or at max_new_tokens."""

    text: str
    num_tokens: int
    ended: bool
    looped: bool
    full: bool = False

    @property
    def remark(self) -> str | None:
        """What a reader should know about how it stopped."""
        if self.looped:
            return "stopped: it repeated itself"
        if self.full:
            return f"stopped after {self.num_tokens:,} tokens: question and answer fill what this model reads at once"
        return None if self.ended else f"stopped after {self.num_tokens:,} tokens: generation.max_new_tokens"


def generate(
    model: Any,
    encoder: ConversationEncoder,
    conversations: Sequence[Sequence[Message]],
    settings: GenerationSection,
    precision: Precision,
    *,
    seed: int = 0,
    on_text: Callable[[str], None] | None = None,
) -> list[Answer]:
    """An answer to each conversation (which ends with a question). `model` is in eval mode on the precision's device.

    seed: of the sampling; the same seed, settings and conversations give the same answers on the same machine.
    on_text: is handed the text of a single conversation's answer while it is written.
    Raises DataError where a question is longer than the model reads.
    """
    prompts = [encoder.ask(messages) for messages in conversations]
    too_long = [index for index, prompt in enumerate(prompts, start=1) if len(prompt) >= encoder.context_length]
    if too_long:
        message = f"longer than the {encoder.context_length:,} tokens that this model reads: {len(too_long)} of them"
        raise DataError(Problem(f"prompt {too_long[0]}", message, "shorten it"))
    assert on_text is None or len(prompts) == 1, "only one answer can be streamed"
    answers: dict[int, Answer] = {}
    devices = [precision.device] if precision.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), quiet_transformers():
        torch.manual_seed(seed)
        for rows, room in _batches(
            [len(prompt) for prompt in prompts], settings.max_new_tokens, encoder.context_length
        ):
            found = _generate_batch(model, encoder, [prompts[row] for row in rows], settings, room, precision, on_text)
            answers.update(zip(rows, found, strict=True))
    return [answers[index] for index in range(len(prompts))]


def _batches(lengths: Sequence[int], max_new_tokens: int, context_length: int) -> Iterator[tuple[list[int], int]]:
    """Rows of like length and the new tokens they have room for: one that nearly fills the context shortens no other
    row's answer."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    for room, rows in itertools.groupby(order, key=lambda row: min(max_new_tokens, context_length - lengths[row])):
        alike = list(rows)
        for start in range(0, len(alike), BATCH_SIZE):
            yield alike[start : start + BATCH_SIZE], room


def _generate_batch(
    model: Any,
    encoder: ConversationEncoder,
    prompts: Sequence[Features],
    settings: GenerationSection,
    room: int,
    precision: Precision,
    on_text: Callable[[str], None] | None,
) -> list[Answer]:
    inputs = encoder.prompts(prompts)
    longest = inputs["input_ids"].shape[1]
    ends = stop_ids(model, encoder)
    loops = LoopStop(longest, len(prompts))
    with torch.inference_mode(), precision.autocast():
        written = model.generate(
            **{name: tensor.to(precision.device) for name, tensor in inputs.items()},
            generation_config=_generation_config(model, settings, room, ends, encoder.tokenizer.pad_token_id),
            stopping_criteria=StoppingCriteriaList([loops]),
            streamer=None if on_text is None else _Streamer(encoder.renderer, ends, on_text),
        )
    answers = []
    for row, ids in enumerate(written[:, longest:].tolist()):
        stop = next((index for index, token in enumerate(ids) if token in ends), None)
        loop = loops.length[row]
        looped = loop is not None and (stop is None or stop >= loop)
        kept = ids[:loop] if looped else ids[:stop]
        ended = stop is not None and not looped
        full = not ended and not looped and room < settings.max_new_tokens
        answers.append(Answer(encoder.renderer.written(kept), len(kept), ended, looped, full))
    return answers


def stop_ids(model: Any, encoder: ConversationEncoder) -> set[int]:
    """Ids of the tokens that end an answer: the one that was trained, and those that the model's makers name."""
    own = model.generation_config.eos_token_id
    return {encoder.renderer.end_id, *(own if isinstance(own, list) else [] if own is None else [own])}


def _generation_config(
    model: Any, settings: GenerationSection, room: int, ends: set[int], pad_token_id: int
) -> GenerationConfig:
    """The settings: ours in everything that shapes the text; of the model's own file only what the machinery needs."""
    sampled = settings.temperature > 0
    return GenerationConfig(
        **(NEUTRAL | (NEUTRAL_SAMPLING if sampled else {})),
        max_new_tokens=room,
        do_sample=sampled,
        temperature=settings.temperature if sampled else 1.0,
        top_p=settings.top_p if sampled else 1.0,
        top_k=0 if sampled else 50,  # 0: off; 50 is the value that greedy decoding ignores in silence
        repetition_penalty=settings.repetition_penalty,
        eos_token_id=sorted(ends),
        pad_token_id=pad_token_id,
        bos_token_id=copy.copy(model.generation_config.bos_token_id),
    )


def is_looping(ids: Sequence[int]) -> bool:
    """Whether the last tokens repeat a stretch of up to LONGEST_PERIOD tokens again and again."""
    for period in range(1, LONGEST_PERIOD + 1):
        needed = max(LOOP_TOKENS, LOOP_REPEATS * period)
        if len(ids) < needed:
            continue
        tail = ids[-needed:]
        if tail[period:] == tail[:-period]:
            return True
    return False


class LoopStop(StoppingCriteria):
    """Stops a row of a batch where it repeats itself. `length`: a row's new tokens at that moment, else None."""

    def __init__(self, prompt_length: int, num_rows: int):
        self.prompt_length = prompt_length
        self.length: list[int | None] = [None] * num_rows

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        for row, ids in enumerate(input_ids[:, self.prompt_length :].tolist()):
            if self.length[row] is None and is_looping(ids):
                self.length[row] = len(ids)
        return torch.tensor([length is not None for length in self.length], device=input_ids.device)


class _Streamer(BaseStreamer):
    """Hands on the text as it grows, in whole characters: a Chinese character may be several tokens."""

    def __init__(self, renderer: Renderer, ends: set[int], on_text: Callable[[str], None]):
        self.renderer, self.ends, self.on_text = renderer, ends, on_text
        self.ids: list[int] | None = None
        self.shown = 0

    def put(self, value: torch.Tensor) -> None:
        if self.ids is None:  # the first call brings the prompt
            self.ids = []
            return
        self.ids += [token for token in value.tolist() if token not in self.ends]
        text = self.renderer.written(self.ids)
        if not text.endswith("\ufffd"):
            self._show(text)

    def end(self) -> None:
        self._show(self.renderer.written(self.ids or []))

    def _show(self, text: str) -> None:
        if len(text) > self.shown:
            self.on_text(text[self.shown :])
            self.shown = len(text)
