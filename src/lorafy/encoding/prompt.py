"""The one prompt renderer: training, evaluation, chat and comparison all ask through it.

A conversation becomes pieces of text, each given or answered. A piece is tokenised by itself, so that the boundary
between question and answer is a boundary between tokens, and a trained question is the question that is asked later.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from ..types import DataError, Message, ModelError, Problem

PLAIN_TEMPLATE = """\
{%- for message in messages %}
{%- if message.role == 'system' %}{{ message.content + '\n\n' }}
{%- elif message.role == 'user' %}{{ 'User:\n' + message.content + '\n\n' }}
{%- else %}{{ 'Assistant:\n' + message.content + eos_token + '\n\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'Assistant:\n' }}{%- endif %}"""
"""Chat template for tokenizers without one (GPT-2, OPT). Saved with the adapter: other tools ask the same way."""

TEMPLATE_FAULTS = (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""What a template may end with: it is a program, and its author may be anybody. transformers runs it in a sandbox."""

PROBE_TEXT = (
    "The quick brown fox jumps over 13 lazy dogs, 98 % off!\n快速的狐狸 PACK MY BOX WITH FIVE DOZEN JUGS: 0245-67\n"
)
PROBE = (Message("user", "Which colour?"), Message("assistant", "quite green"))


@dataclass(frozen=True)
class Piece:
    """A piece of a conversation's text. `trained`: an answer with the end of its turn; else what is given."""

    text: str
    trained: bool


@dataclass(frozen=True)
class Renderer:
    """Conversations as text and tokens. Make it with `make_renderer`.

    space: the white space that the template writes before an answer, as part of what is trained.
    end: the text of the token that ends an answer. trailing: what the template writes behind it (untrained).
    """

    tokenizer: Any
    system: str | None
    thinking: bool
    space: str
    end: str
    trailing: str

    @property
    def end_id(self) -> int:
        """Id of the token that ends an answer."""
        return self.tokenizer.convert_tokens_to_ids(self.end)

    @cached_property
    def _leads(self) -> dict[str, list[int]]:
        """Token ids of the two texts that a piece may follow: a line's end (before an answer), an answer's end."""
        return {
            text: self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            for text in ("\n", self.end)
        }

    @property
    def fingerprint(self) -> str:
        """sha256 of all that decides how a question is put: template, settings, and how the tokenizer cuts text."""
        probe = self.tokenizer(PROBE_TEXT, add_special_tokens=False, verbose=False)["input_ids"]
        facts = [self.tokenizer.chat_template, self.system, self.thinking, self.end, self.end_id, probe]
        return hashlib.sha256(json.dumps(facts, ensure_ascii=False).encode()).hexdigest()

    def question(self, messages: Sequence[Message]) -> str:
        """The text up to where the next answer begins."""
        return self._render(messages, add_generation_prompt=True)

    def question_ids(self, messages: Sequence[Message]) -> list[int]:
        """The tokens that generation starts from: those that training puts in front of the same answer."""
        return self.encode(self._asked(messages))[0]

    def sequences(self, messages: Sequence[Message]) -> list[list[Piece]]:
        """One sequence with every answer trained; or, where the template rewrites what was said before (Qwen3 takes
        earlier thoughts out), one for each answer, each after exactly the text that it will be asked with.

        Raises DataError where the template refuses the conversation.
        """
        ends = [index for index, message in enumerate(messages) if message.role == "assistant"]
        whole = self._pieces(messages, ends)
        if whole is not None:
            return [whole]
        apart = [self._pieces(messages[: end + 1], [end]) for end in ends]
        return [pieces for pieces in apart if pieces is not None]

    def encode(self, pieces: Sequence[Piece]) -> tuple[list[int], list[bool]]:
        """Token ids, and for each whether it is trained. `pieces`: a question, its answer, the next question ..."""
        ids: list[int] = []
        trained: list[bool] = []
        for index, piece in enumerate(pieces):
            lead = None if index == 0 else "\n" if index % 2 else self.end
            part = self._ids(piece.text, lead)
            ids += part
            trained += [piece.trained] * len(part)
        return ids, trained

    def written(self, ids: Sequence[int]) -> str:
        """The text of an answer's tokens, without special ones. Unedited: it follows a line's end, as in training, for
        some tokenizers (Llama's) drop a space at the start of whatever they read."""
        lead = self._leads["\n"]
        before = self.tokenizer.decode(lead)
        text = self.tokenizer.decode([*lead, *ids], skip_special_tokens=True)
        if not text.startswith(before):
            text = before + self.tokenizer.decode(ids, skip_special_tokens=True)
        return text.removeprefix(before).removeprefix(self.space)

    def _asked(self, messages: Sequence[Message]) -> list[Piece]:
        """The question in the pieces of `sequences`; in one where the template rewrites what was said before."""
        given = self.question(messages)
        ends = [index for index, message in enumerate(messages) if message.role == "assistant"]
        try:
            said = self._pieces(messages, ends) or []
        except DataError:  # an answer that is told otherwise now, such as one with thoughts in it
            said = []
        before = "".join(piece.text for piece in said)
        if not given.startswith(before):
            return [Piece(given, False)]
        return [*said, Piece(given.removeprefix(before), False)]

    def _pieces(self, messages: Sequence[Message], ends: Sequence[int]) -> list[Piece] | None:
        """The conversation in pieces, its answers at `ends`; None where an answer's question does not begin with all
        that was said before it."""
        pieces: list[Piece] = []
        done = ""
        for end in ends:
            given = self.question(messages[:end])
            whole = self._render(messages[: end + 1], add_generation_prompt=False)
            if not given.startswith(done):
                return None
            answer = whole.removeprefix(given).removesuffix(self.trailing)
            if not whole.startswith(given) or not answer.endswith(self.end):
                message = f"the chat template does not keep the question in front of this answer: {_short(whole)}"
                thinks = "</think>" in messages[end].content and not self.thinking
                fix = "it holds thoughts: set data.thinking=true, or take them out" if thinks else None
                raise DataError(Problem("the chat template", message, fix))
            pieces += [Piece(given.removeprefix(done), False), Piece(answer, True)]
            done = given + answer
        return pieces

    def _render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        if self.system is not None and messages[0].role != "system":
            messages = [Message("system", self.system), *messages]
        try:
            return self.tokenizer.apply_chat_template(
                [{"role": message.role, "content": message.content} for message in messages],
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                enable_thinking=self.thinking,
            )
        except TEMPLATE_FAULTS as error:
            raise DataError(Problem("the chat template", f"refuses this conversation: {error}")) from error

    def _ids(self, text: str, lead: str | None) -> list[int]:
        """A piece after the first is tokenised as what follows `lead`: some tokenizers (Llama's) put a space in front
        of whatever they are given."""
        if lead is not None:
            before = self._leads[lead]
            both = self.tokenizer(f"{lead}{text}", add_special_tokens=False, verbose=False)["input_ids"]
            if both[: len(before)] == before:
                return both[len(before) :]
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def make_renderer(tokenizer: Any, *, system: str | None = None, thinking: bool = False) -> Renderer:
    """Gives a tokenizer without a chat template the plain one, and finds the token that ends an answer.

    Raises ModelError where the template cannot mark the answer or its end, or knows no thinking mode that is asked for.
    """
    if tokenizer.chat_template is None:
        if tokenizer.eos_token is None:
            fix = "set eos_token in its tokenizer_config.json: an answer has to end"
            raise ModelError(Problem("model.path", "the tokenizer has no end token", fix))
        tokenizer.chat_template = _begin(tokenizer) + PLAIN_TEMPLATE
    probe = Renderer(tokenizer, None, thinking, space="", end="", trailing="")
    given = probe.question(PROBE[:1])
    whole = probe._render(PROBE, add_generation_prompt=False)
    before, found, after = whole.removeprefix(given).partition(PROBE[1].content)
    lead = before.replace("<think>", "").replace("</think>", "").strip()
    if not whole.startswith(given) or not found or lead:
        message = f"the chat template does not mark where an answer begins: it writes {_short(whole)}"
        fix = "it needs add_generation_prompt; set another chat_template in the tokenizer's folder"
        raise ModelError(Problem("the chat template", message, fix))
    end = _first_special(tokenizer, after)
    if end is None:
        message = f"the chat template ends an answer with {after!r}, which holds no special token"
        fix = "a model could not learn to stop; add the end token to the chat_template"
        raise ModelError(Problem("the chat template", message, fix))
    if thinking and probe.question(PROBE[:1]) == Renderer(tokenizer, None, False, "", "", "").question(PROBE[:1]):
        fix = "remove it; only templates such as Qwen3's know it"
        raise ModelError(Problem("data.thinking", "no effect: the chat template has no thinking mode", fix))
    stop = after.index(end) + len(end)
    space = before if not before.strip() else ""
    return Renderer(tokenizer, system, thinking, space, end, after[stop:])


def _begin(tokenizer: Any) -> str:
    """Template text for what the tokenizer puts in front of every text, such as OPT's and Llama's <s>."""
    first = tokenizer("a")["input_ids"][0]
    return "{{- bos_token }}" if first == tokenizer.bos_token_id else ""


def _first_special(tokenizer: Any, text: str) -> str | None:
    special = {*tokenizer.all_special_tokens, *(str(token) for token in tokenizer.added_tokens_decoder.values())}
    found = [(text.index(token), -len(token), token) for token in special if token in text]
    return min(found)[2] if found else None


def _short(text: str) -> str:
    return repr(text if len(text) <= 160 else f"{text[:160]}...")
