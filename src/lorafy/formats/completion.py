"""One question, one answer: an instruction with its output, a prompt with its completion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..config.schema import Columns
from ..types import Conversation, Message
from . import ColumnSearch, cell, filled, value_at

PRECEDENCE = 20
USUAL_PAIRS = (
    ("prompt", "completion"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("prompt", "response"),
    ("question", "answer"),
    ("question", "answers"),
    ("question", "response"),
    ("query", "response"),
    ("title", "answers"),  # ELI5: the answers are {"text": [...]}
    ("text", "target"),
    ("input", "output"),
)
USUAL_PROMPT = tuple(dict.fromkeys(prompt for prompt, _ in USUAL_PAIRS))
USUAL_COMPLETION = tuple(dict.fromkeys(completion for _, completion in USUAL_PAIRS))


def recognises(names: Sequence[str], config: Columns) -> bool:
    """Whether a question or an answer is named in the recipe, or both are there by their usual names."""
    if config.prompt is not None or config.completion is not None:
        return True
    return _usual_pair(ColumnSearch(names, ""), None, None) is not None


def resolve_columns(names: Sequence[str], config: Columns, where: str, *, answered: bool = True) -> Columns:
    """Which column plays which part: the recipe's, else a usual pair in any letter case.

    An instruction takes a column `input` along (Alpaca). Raises DataError naming the columns that are there.
    """
    search = ColumnSearch(names, where)
    prompt = search.given("prompt", config.prompt)
    completion = search.given("completion", config.completion) if answered else None
    if prompt is None or (answered and completion is None):
        pair = _usual_pair(search, prompt, completion)
        if pair is not None:
            prompt, completion = pair
        else:
            prompt = prompt or search.usual("prompt", USUAL_PROMPT)
            if answered and completion is None:
                # Names of two different pairs are no pair: the answer has to be named then.
                completion = search.usual("completion", () if prompt else USUAL_COMPLETION)
    if not answered:
        completion = None
    about, system = search.given("input", config.input), search.given("system", config.system)
    if about is None and prompt is not None and prompt.lower() == "instruction":
        about = _unused(search, "input", completion)
    if system is None:
        system = _unused(search, "system", prompt, completion, about)
    search.finish(prompt=prompt, input=about, completion=completion, system=system)
    return Columns(prompt=prompt, input=about, completion=completion, system=system)


def _usual_pair(search: ColumnSearch, prompt: str | None, completion: str | None) -> tuple[str, str] | None:
    """The first usual pair that is there, with the recipe's column in its place; pairs that know its name go first."""
    known = {name.lower() for name in (prompt, completion) if name is not None}
    for usual in sorted(USUAL_PAIRS, key=lambda pair: known.isdisjoint(pair)):
        asked, answer = prompt or search.by_lower.get(usual[0]), completion or search.by_lower.get(usual[1])
        if asked is not None and answer is not None and asked != answer:
            return asked, answer
    return None


def _unused(search: ColumnSearch, name: str, *used: str | None) -> str | None:
    column = search.by_lower.get(name)
    return None if column in used else column


def parse(
    record: Mapping[str, Any], columns: Columns, source: str, row: int, label_names: Mapping[str, list[str]]
) -> Conversation:
    """One record as system (where there is one), user and, where a completion was resolved, assistant.

    An empty question or answer becomes "": the caller counts and names such rows. Raises DataError where a part is
    neither a text nor a number.
    """

    def text(column: str | int | None, part: str) -> str:
        return "" if column is None else filled(cell(record, _answers_text(record, str(column)), part, row))

    question, about = text(columns.prompt, "prompt"), text(columns.input, "input")
    system = text(columns.system, "system")
    messages = [Message("system", system)] if system else []
    messages.append(Message("user", "\n\n".join(part for part in (question, about) if part)))
    if columns.completion is not None:
        messages.append(Message("assistant", text(columns.completion, "completion")))
    return Conversation(tuple(messages), source, row)


def _answers_text(record: Mapping[str, Any], column: str) -> str:
    """`answers` of SQuAD and ELI5 is an object of lists; its `text` holds the answers, the best one first."""
    if column.lower().split(".")[-1] != "answers":
        return column
    value = value_at(record, column)
    return f"{column}.text" if isinstance(value, Mapping) and "text" in value else column
