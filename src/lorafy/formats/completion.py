"""One question, one answer: an instruction with its output, a prompt with its completion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..config.schema import Columns
from ..pictures.placing import Turn, place_pictures
from ..pictures.references import Place
from ..types import Conversation, Problem
from . import USUAL_IMAGES, ColumnSearch, cell, filled, pictures_in, value_at
from .chat import of_turns
from .labelled import USUAL_LABEL

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
    ("prompt", "answer"),
    ("title", "answers"),  # ELI5: the answers are {"text": [...]}
    ("text", "target"),
    ("input", "output"),
)
USUAL_CAPTION = ("caption", "text")
"""What says of a picture what it shows, where nothing else stands beside it: the picture alone is the question."""
ASKED = ("prompt", "instruction", "question", "query")
"""Where one of these stands beside the picture, the row asks something."""
USUAL_PROMPT = tuple(dict.fromkeys(prompt for prompt, _ in USUAL_PAIRS))
USUAL_COMPLETION = tuple(dict.fromkeys(completion for _, completion in USUAL_PAIRS))


def recognises(names: Sequence[str], config: Columns) -> bool:
    """Whether a question or an answer is named in the recipe, or both are there by their usual names; or pictures with
    captions."""
    if config.prompt is not None or config.completion is not None:
        return True
    search = ColumnSearch(names, "")
    return _usual_pair(search, None, None) is not None or bool(_captions(search, config))


def resolve_columns(names: Sequence[str], config: Columns, where: str, *, answered: bool = True) -> Columns:
    """Which column plays which part: the recipe's, else a usual pair in any letter case.

    An instruction takes a column `input` along (Alpaca). Pictures need no question: then `prompt` of the result is
    None. Raises DataError naming the columns that are there.
    """
    search = ColumnSearch(names, where)
    prompt = search.given("prompt", config.prompt)
    completion = search.given("completion", config.completion) if answered else None
    captions = _captions(search, config)
    if captions:
        completion = completion or _caption(search, captions, answered)
    elif (prompt is None and not _shows_alone(search, config, answered)) or (
        prompt is not None and answered and completion is None
    ):
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
    images = search.images(config.images, prompt, about, completion, system)
    search.finish(prompt=prompt, input=about, completion=completion, system=system)
    return Columns(prompt=prompt, input=about, completion=completion, system=system, images=images)


def _captions(search: ColumnSearch, config: Columns) -> list[str]:
    """The columns that may be captions of pictures; none where a row asks something, or has a label."""
    stated = (config.prompt, config.input, config.completion, config.text, config.label)
    questions = [name for name in (*ASKED, *USUAL_LABEL) if name in search.by_lower]
    if not _has_pictures(search, config) or any(part is not None for part in stated) or questions:
        return []
    if _usual_pair(search, None, None) is not None:
        return []
    return [search.by_lower[name] for name in USUAL_CAPTION if name in search.by_lower]


def _caption(search: ColumnSearch, captions: Sequence[str], answered: bool) -> str | None:
    """The column of captions. One called text may be the question, where there are others or where none is wanted."""
    if len(captions) > 1 or (not answered and captions[0].lower() != USUAL_CAPTION[0]):
        message = f"is '{captions[-1]}' of {search.where} what is asked of a picture, or what is to be answered?"
        fix = "call the column question, or caption; or name it: data.columns.prompt or data.columns.completion"
        search.problems.append(Problem("data.columns", message, fix))
    return captions[0]


def _shows_alone(search: ColumnSearch, config: Columns, answered: bool) -> bool:
    """Whether the pictures are all that is asked: nothing else there has a question's usual name, and the answer is
    named or not wanted."""
    if not _has_pictures(search, config) or (answered and config.completion is None):
        return False
    answer = str(config.completion)
    return not any(search.by_lower.get(name, answer) != answer for name in USUAL_PROMPT)


def _has_pictures(search: ColumnSearch, config: Columns) -> bool:
    return config.images is not None or any(name in search.by_lower for name in USUAL_IMAGES)


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
    """One record as system (where there is one), user and, where a completion was resolved, assistant. Pictures are
    part of the question.

    An empty question or answer becomes "": the caller counts and names such rows. Question and answer may be lists of
    turns, as trl has them. Raises DataError where a part is none of these, and neither a text nor a number.
    """

    def text(column: str | int | None, part: str) -> str:
        return "" if column is None else filled(cell(record, _answers_text(record, str(column)), part, row))

    asked, answered = _turns(record, columns.prompt), _turns(record, columns.completion)
    if asked:
        if columns.completion is not None and not answered:
            answered = [{"role": "assistant", "content": text(columns.completion, "completion")}]
        return of_turns([*asked, *answered], record, columns, source, row)
    question, about = text(columns.prompt, "prompt"), text(columns.input, "input")
    system = text(columns.system, "system")
    turns: list[Turn] = [("system", [system])] if system else []
    turns.append(("user", ["\n\n".join(part for part in (question, about) if part)]))
    if columns.completion is not None:
        turns.append(("assistant", [text(columns.completion, "completion")]))
    place = Place("data.columns.images", f"row {row}")
    return Conversation(tuple(place_pictures(turns, pictures_in(record, columns, row), place)), source, row)


def _turns(record: Mapping[str, Any], column: str | int | None) -> list[Any]:
    """The turns that a cell holds; none where it holds something else."""
    value = None if column is None else value_at(record, str(column), whole=True)
    is_list = isinstance(value, list) and all(isinstance(turn, Mapping) and "role" in turn for turn in value)
    return value if isinstance(value, list) and is_list else []


def _answers_text(record: Mapping[str, Any], column: str) -> str:
    """`answers` of SQuAD and ELI5 is an object of lists; its `text` holds the answers, the best one first."""
    if column.lower().split(".")[-1] != "answers":
        return column
    value = value_at(record, column)
    return f"{column}.text" if isinstance(value, Mapping) and "text" in value else column
