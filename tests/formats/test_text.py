"""A raw record becomes a plain text."""

from __future__ import annotations

from typing import Any

import pytest

from lorafy.config.schema import Columns
from lorafy.formats.text import parse, recognises, resolve_columns
from lorafy.tasks import kinds
from lorafy.types import Conversation, DataError, Message

NOTHING = Columns(text=None)


def test_the_task_is_a_language_model() -> None:
    assert [name for name, kind in kinds().items() if "text" in kind.records.formats] == ["causal_lm"]


@pytest.mark.parametrize(
    ("names", "columns", "expected"),
    [
        (["text"], NOTHING, True),
        (["id", "Story"], NOTHING, True),
        (["content"], NOTHING, True),
        (["document"], NOTHING, True),
        (["body"], NOTHING, False),
        (["body"], Columns(text="body"), True),
        (["body", "kind"], Columns(text="body", label="kind"), False),
        (["0"], Columns(text=0), True),
    ],
)
def test_a_text_is_recognised(names: list[str], columns: Columns, expected: bool) -> None:
    assert recognises(names, columns) is expected


@pytest.mark.parametrize(
    ("names", "columns", "found"),
    [
        (["id", "TEXT"], NOTHING, "TEXT"),
        (["document", "story", "content"], NOTHING, "content"),
        (["text", "body"], Columns(text="body"), "body"),
        (["meta"], Columns(text="meta.body"), "meta.body"),
        (["0", "1"], Columns(text=1), "1"),
    ],
)
@pytest.mark.parametrize("answered", [True, False])
def test_the_column_is_named_or_found(names: list[str], columns: Columns, found: str, answered: bool) -> None:
    assert resolve_columns(names, columns, "a.jsonl", answered=answered) == Columns(text=found)


@pytest.mark.parametrize(
    ("names", "columns", "message"),
    [
        (["a", "b"], NOTHING, "data.columns.text: found no column for the text in a.jsonl; it has a, b"),
        (["story"], Columns(text="storey"), "no column 'storey' in a.jsonl; it has story\n    -> did you mean story?"),
    ],
)
def test_a_column_that_is_not_there_is_named(names: list[str], columns: Columns, message: str) -> None:
    with pytest.raises(DataError) as caught:
        resolve_columns(names, columns, "a.jsonl")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("value", "content"),
    [
        (" 从前有座山，\n 山里有座庙。 ", " 从前有座山，\n 山里有座庙。 "),
        (12, "12"),
        ("", ""),
        (" \n", ""),
        (None, ""),
        (float("nan"), ""),
    ],
)
def test_a_text_stays_as_it_is_and_an_empty_one_is_left_to_the_caller(value: Any, content: str) -> None:
    conversation = parse({"text": value}, Columns(text="text"), "a.jsonl", 3, {})
    assert conversation == Conversation((Message("text", content),), "a.jsonl", 3)


def test_an_object_is_no_text() -> None:
    with pytest.raises(DataError, match=r"data\.columns\.text: 'text' holds an object with the keys en \(row 7\)"):
        parse({"text": {"en": "a"}}, Columns(text="text"), "a.jsonl", 7, {})
