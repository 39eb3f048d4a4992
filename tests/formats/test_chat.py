"""A raw record becomes the turns of a conversation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from lorafy.config.schema import Columns, DataSection
from lorafy.data.sources import read_source
from lorafy.formats.chat import parse, recognises, resolve_columns
from lorafy.tasks import kinds
from lorafy.types import Conversation, DataError

NOTHING = Columns(text=None)
Turns = list[tuple[str, Any]]

TWO_QUESTIONS: Turns = [("user", "你好？"), ("assistant", " 你好！\n"), ("user", "q"), ("assistant", "a")]


def spoken(turns: Turns) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in turns]


def one(record: dict[str, Any], columns: Columns = NOTHING, answered: bool = True) -> Turns:
    """The messages of one record, its columns found as a table's would be."""
    found = resolve_columns(list(record), columns, "a.jsonl", answered=answered)
    conversation: Conversation = parse(record, found, "a.jsonl", 7, {})
    assert (conversation.source, conversation.row) == ("a.jsonl", 7)
    return [(message.role, message.content) for message in conversation.messages]


def refusal(record: dict[str, Any], answered: bool = True) -> str:
    with pytest.raises(DataError) as caught:
        one(record, answered=answered)
    (problem,) = caught.value.problems
    assert problem.where == "data.columns.messages"
    assert problem.fix
    return str(problem)


def test_the_task_is_a_language_model() -> None:
    models = [name for name, kind in kinds().items() if "chat" in kind.records.formats]
    assert models == ["causal_lm", "vision_language"]


@pytest.mark.parametrize(
    ("names", "columns", "expected"),
    [
        (["id", "messages"], NOTHING, True),
        (["Conversations"], NOTHING, True),
        (["conversation"], NOTHING, True),
        (["dialog"], NOTHING, True),
        (["turns"], NOTHING, False),
        (["turns"], Columns(messages="turns"), True),
        (["message", "label"], NOTHING, False),
    ],
)
def test_what_is_recognised(names: list[str], columns: Columns, expected: bool) -> None:
    assert recognises(names, columns) is expected


@pytest.mark.parametrize(
    ("names", "columns", "found"),
    [
        (["id", "Messages"], NOTHING, ("Messages", None)),
        (["conversations", "messages", "System"], NOTHING, ("messages", "System")),
        (["turns", "rules", "messages"], Columns(messages="turns", system="rules"), ("turns", "rules")),
        (["data"], Columns(messages="data.turns"), ("data.turns", None)),
        (["0", "1"], Columns(messages=1), ("1", None)),
    ],
)
def test_columns_are_named_or_found(names: list[str], columns: Columns, found: tuple[str, str | None]) -> None:
    resolved = resolve_columns(names, columns, "a.jsonl")
    assert (resolved.messages, resolved.system) == found


@pytest.mark.parametrize(
    ("names", "columns", "message"),
    [
        (["a", "b"], NOTHING, "data.columns.messages: found no column for the messages in a.jsonl; it has a, b"),
        (["messages"], Columns(messages="mesages"), "did you mean messages?"),
        (["messages"], Columns(system="rules"), "data.columns.system: no column 'rules' in a.jsonl; it has messages"),
        (["messages"], Columns(system="messages"), "'messages' of a.jsonl is taken twice, among messages and system"),
    ],
)
def test_a_column_that_is_not_there_is_named(names: list[str], columns: Columns, message: str) -> None:
    with pytest.raises(DataError) as caught:
        resolve_columns(names, columns, "a.jsonl")
    assert message in str(caught.value)


def test_every_spelling_of_turns_gives_the_same_messages() -> None:
    turns = spoken([("system", "规则"), *TWO_QUESTIONS])
    sharegpt = [("system", "规则"), ("human", "你好？"), ("gpt", " 你好！\n"), ("Human", "q"), ("model", "a")]
    for record in (
        {"messages": turns},
        {"dialog": json.dumps(turns)},
        {"conversation": json.dumps(turns, ensure_ascii=False)},
        {"conversations": [{"from": role, "value": text} for role, text in sharegpt]},
        {"conversations": [{"role": role, "content": text} for role, text in sharegpt]},
        {"messages": [{**turn, "from": None, "value": None, "weight": 1} for turn in turns]},
        {"messages": spoken(TWO_QUESTIONS), "system": "规则"},
        {"messages": turns, "system": "规则"},
        {"messages": turns, "system": None},
    ):
        assert one(record) == [("system", "规则"), *TWO_QUESTIONS]
    assert one({"data": {"turns": turns}}, Columns(messages="data.turns")) == [("system", "规则"), *TWO_QUESTIONS]
    assert one({"messages": [{"role": "user", "content": "q"}, {"role": "bot", "content": "a"}]}) == TWO_QUESTIONS[2:]


def test_turns_survive_csv_and_parquet(tmp_path: Path) -> None:
    rows = [{"messages": spoken(TWO_QUESTIONS)}, {"messages": [*spoken(TWO_QUESTIONS), *spoken(TWO_QUESTIONS)]}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    cells = ['"' + json.dumps(row["messages"]).replace('"', '""') + '"' for row in rows]
    (tmp_path / "a.csv").write_text("messages\n" + "\n".join(cells), encoding="utf-8")
    for name in ("a.parquet", "a.csv"):
        path = str(tmp_path / name)
        table = read_source(path, DataSection(train=path), "train")["train"]
        assert [one(dict(record)) for record in table.records] == [TWO_QUESTIONS, TWO_QUESTIONS * 2]


def test_parts_of_text_are_joined_and_null_is_empty() -> None:
    parts = [{"type": "text", "text": "一"}, {"type": "text", "text": " 二"}]
    assert one({"messages": spoken([("user", parts), ("assistant", None)])}) == [("user", "一 二"), ("assistant", "")]
    assert one({"messages": spoken([("user", 6), ("assistant", [])])}) == [("user", "6"), ("assistant", "")]


def test_an_empty_system_message_is_none() -> None:
    for empty in ("", " ", None):
        assert one({"messages": spoken([("system", empty), *TWO_QUESTIONS])}) == TWO_QUESTIONS
        assert one({"messages": spoken([("system", empty), *TWO_QUESTIONS]), "system": "规则"})[0] == ("system", "规则")


def test_a_question_to_answer_ends_with_the_user_and_a_known_answer_is_left_away() -> None:
    asked = {"messages": spoken(TWO_QUESTIONS[:3])}
    assert one(asked, answered=False) == TWO_QUESTIONS[:3]
    assert one({"messages": spoken(TWO_QUESTIONS)}, answered=False) == TWO_QUESTIONS[:3]
    assert "the last turn is a question without an answer (row 7)" in refusal(asked)


USER, ANSWER, SYSTEM = ("user", "q"), ("assistant", "a"), ("system", "s")


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([USER, ANSWER, ANSWER], "turn 3 is 'assistant' after 'assistant' (row 7)"),
        ([SYSTEM, USER, USER, ANSWER], "turn 3 is 'user' after 'user' (row 7)"),
        ([ANSWER, USER], "turn 1 is 'assistant' at the start (row 7)"),
        ([SYSTEM, ANSWER], "turn 2 is 'assistant' after 'system' (row 7)"),
        ([USER, ANSWER, SYSTEM, USER, ANSWER], "turn 3 is 'system' after 'assistant' (row 7)"),
        ([SYSTEM, SYSTEM, USER, ANSWER], "turn 2 is 'system' after 'system' (row 7)"),
        ([SYSTEM], "there is a system turn and no other (row 7)"),
        ([USER, ("tool", "{}"), ANSWER], "turn 2 is 'tool', not system, user or assistant (row 7)"),
        ([USER, ("function_call", "{}")], "turn 2 is 'function_call', not system, user or assistant (row 7)"),
    ],
)
def test_user_and_assistant_take_turns(turns: Turns, message: str, answered: bool) -> None:
    assert message in refusal({"messages": spoken(turns)}, answered)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "'messages' holds no turns (row 7)"),
        ([], "'messages' holds no turns (row 7)"),
        ("", "'messages' holds no turns (row 7)"),
        ("[]", "'messages' holds no turns (row 7)"),
        (float("nan"), "'messages' holds no turns (row 7)"),
        ("[{'role': 'user'}]", "'messages' holds broken json: Expecting property name"),
        ("[" * 100_000, "'messages' holds broken json"),
        ({"role": "user"}, "'messages' holds no list of turns (row 7)"),
        (3, "'messages' holds no list of turns (row 7)"),
        (["hello"], "turn 1 has no role (row 7)"),
        ([{"input": "q", "output": "a"}], "turn 1 has no role (row 7)"),
        (spoken([("user", {"text": "q"})]), "turn 1 holds an object or bytes, not text (row 7)"),
        (spoken([("user", ["q"])]), "turn 1 holds a part that is no text (row 7)"),
        (spoken([("user", [{"type": "tool"}])]), "turn 1 holds a part that is no text (row 7)"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_list_of_turns_is_refused(value: Any, message: str) -> None:
    assert message in refusal({"messages": value})


def test_two_system_messages_are_refused() -> None:
    text = refusal({"messages": spoken([SYSTEM, USER, ANSWER]), "system": "another"})
    assert "a system turn beside another system message in 'system' (row 7)" in text


def test_the_mark_of_a_picture_is_text_where_there_is_no_column_of_pictures() -> None:
    code = [("user", "What does <image> do in SVG?"), ("assistant", "It shows a picture.")]
    assert one({"messages": spoken(code)}) == code
    assert "1 mark <image> in the questions, no picture" in refusal({"messages": spoken(code), "images": []})
