"""A raw record becomes a question and its answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lorafy.config.schema import Columns, DataSection
from lorafy.data.sources import read_source
from lorafy.formats.completion import USUAL_PAIRS, parse, recognises, resolve_columns
from lorafy.tasks import kinds
from lorafy.types import Conversation, DataError

NOTHING = Columns(text=None)


def turns(conversation: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in conversation.messages]


def one(record: dict[str, Any], columns: Columns = NOTHING, answered: bool = True) -> list[tuple[str, str]]:
    """The messages of one record, its columns found as a table's would be."""
    found = resolve_columns(list(record), columns, "a.jsonl", answered=answered)
    conversation = parse(record, found, "a.jsonl", 7, {})
    assert (conversation.source, conversation.row) == ("a.jsonl", 7)
    return turns(conversation)


def test_the_task_is_a_language_model() -> None:
    models = [name for name, kind in kinds().items() if "completion" in kind.records.formats]
    assert models == ["causal_lm", "vision_language"]


@pytest.mark.parametrize(("prompt", "completion"), USUAL_PAIRS)
def test_every_usual_pair_is_found_in_any_letter_case(prompt: str, completion: str) -> None:
    record = {"id": 3, completion.upper(): "甲在这里。", prompt.title(): " 甲在哪里？\n 说 "}
    assert recognises(list(record), NOTHING)
    assert one(record) == [("user", " 甲在哪里？\n 说 "), ("assistant", "甲在这里。")]


@pytest.mark.parametrize(
    ("names", "columns", "expected"),
    [
        (["a", "b"], Columns(prompt="a"), True),
        (["a", "b"], Columns(completion="b"), True),
        (["0", "1"], Columns(prompt=0, completion=1), True),
        (["text", "label"], NOTHING, False),
        (["prompt", "output"], NOTHING, False),
        (["instruction", "instances"], NOTHING, False),
        (["messages"], NOTHING, False),
    ],
)
def test_what_is_recognised(names: list[str], columns: Columns, expected: bool) -> None:
    assert recognises(names, columns) is expected


@pytest.mark.parametrize(
    ("names", "columns", "found"),
    [  # found: prompt, input, completion, system
        (["instruction", "input", "output"], NOTHING, ("instruction", "input", "output", None)),
        (["System", "Instruction", "Input", "Response"], NOTHING, ("Instruction", "Input", "Response", "System")),
        (["id", "title", "context", "question", "answers"], NOTHING, ("question", None, "answers", None)),
        (["q_id", "title", "selftext", "answers"], NOTHING, ("title", None, "answers", None)),
        (["question", "answer", "prompt", "completion"], NOTHING, ("prompt", None, "completion", None)),
        (["a", "b", "c", "d"], Columns(prompt="a", input="b", completion="c", system="d"), ("a", "b", "c", "d")),
        (["instruction", "instances"], Columns(completion="instances.output", input="instances.input"),
         ("instruction", "instances.input", "instances.output", None)),
        (["0", "1", "2"], Columns(prompt=2, completion=0), ("2", None, "0", None)),
        # One part by name: the other is looked for beside it first.
        (["output", "question", "answer"], Columns(prompt="question"), ("question", None, "answer", None)),
        (["output", "question", "answer"], Columns(prompt="output"), ("output", None, "answer", None)),
        (["title", "input", "best"], Columns(completion="best"), ("title", None, "best", None)),
        (["instruction", "input", "output"], Columns(prompt="input"), ("input", None, "output", None)),
        (["instruction", "input", "x"], Columns(completion="input"), ("instruction", None, "input", None)),
        (["prompt", "completion", "system"], Columns(completion="system"), ("prompt", None, "system", None)),
    ],
)  # fmt: skip
def test_columns_are_named_or_found(names: list[str], columns: Columns, found: tuple[str | None, ...]) -> None:
    resolved = resolve_columns(names, columns, "a.csv")
    assert (resolved.prompt, resolved.input, resolved.completion, resolved.system) == found
    assert (resolved.text, resolved.label, resolved.messages) == (None, None, None)


@pytest.mark.parametrize(
    ("names", "columns", "message"),
    [
        (["question", "answer"], Columns(prompt="questions"), "data.columns.prompt: no column 'questions' in a.csv"),
        (["question", "answer"], Columns(prompt="questions"), "did you mean question?"),
        (["question", "answer"], Columns(system="sys"), "data.columns.system: no column 'sys' in a.csv"),
        (["question", "answer"], Columns(input="about"), "data.columns.input: no column 'about' in a.csv"),
        (["a", "b"], NOTHING, "data.columns.prompt: found no column for the prompt in a.csv; it has a, b"),
        (["a", "b"], NOTHING, "data.columns.completion: found no column for the completion in a.csv; it has a, b"),
        (["question", "b"], NOTHING, "name it: data.columns.completion=NAME"),
        (["0", "1"], Columns(prompt=5, completion=1), "data.columns.prompt: no column '5' in a.csv; it has 0, 1"),
        (["a", "b"], Columns(prompt="a", completion="a"), "data.columns: 'a' of a.csv is taken twice, among prompt,"),
    ],
)
def test_a_column_that_is_not_there_is_named_with_those_that_are(
    names: list[str], columns: Columns, message: str
) -> None:
    with pytest.raises(DataError) as caught:
        resolve_columns(names, columns, "a.csv")
    assert message in str(caught.value)


def test_names_of_two_different_pairs_are_no_pair() -> None:
    with pytest.raises(DataError) as caught:
        resolve_columns(["title", "output"], NOTHING, "a.csv")
    assert [problem.where for problem in caught.value.problems] == ["data.columns.completion"]


def test_an_input_follows_its_instruction_and_a_system_message_goes_first() -> None:
    record = {"instruction": "翻译成英文。", "input": "你好，\n世界", "output": "Hello,\nworld", "system": "你是译者。"}
    assert one(record) == [
        ("system", "你是译者。"),
        ("user", "翻译成英文。\n\n你好，\n世界"),
        ("assistant", "Hello,\nworld"),
    ]
    for nothing in ("", " \n", None, float("nan")):
        assert one({**record, "input": nothing, "system": nothing}) == [
            ("user", "翻译成英文。"),
            ("assistant", "Hello,\nworld"),
        ]


@pytest.mark.parametrize(
    "answers",
    [
        {"a_id": ["x", "y"], "text": ["an answer", "another"], "score": [5, 3]},
        {"text": "an answer"},
        [{"text": "an answer"}, {"text": "another"}],
        ["an answer", "another"],
        "an answer",
    ],
)
@pytest.mark.parametrize("asked", ["question", "title"])
def test_the_first_of_several_answers_is_taken(answers: Any, asked: str) -> None:
    expected = [("user", "why?"), ("assistant", "an answer")]
    assert one({asked: "why?", "answers": answers}) == expected
    assert one({asked: "why?", "data": {"answers": answers}}, Columns(completion="data.answers")) == expected


def test_question_and_answer_may_be_lists_of_turns() -> None:
    """As trl has them."""
    prompt = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Say 0"}]
    answer = {"role": "assistant", "content": "0"}
    expected = [("system", "Be short."), ("user", "Say 0"), ("assistant", "0")]
    assert one({"prompt": prompt, "completion": [answer]}) == expected
    assert one({"prompt": prompt, "completion": "0"}) == expected
    assert one({"prompt": [*prompt, answer, prompt[1]], "completion": [answer]}) == [*expected, *expected[1:]]
    assert one({"prompt": prompt}, answered=False) == expected[:2]
    with pytest.raises(DataError, match="turn 3 is 'user' after 'user'"):
        one({"prompt": [*prompt, prompt[1]], "completion": [answer]})


@pytest.mark.parametrize("answer", ["", " ", None, float("nan"), [], [None]])
def test_an_empty_answer_is_left_to_the_caller(answer: Any) -> None:
    assert one({"question": "why?", "answer": answer}) == [("user", "why?"), ("assistant", "")]
    assert one({"question": "why?", "answers": {"text": answer}}) == [("user", "why?"), ("assistant", "")]


def test_an_empty_question_is_left_to_the_caller_and_numbers_are_their_digits() -> None:
    assert one({"question": None, "answer": "because"}) == [("user", ""), ("assistant", "because")]
    assert one({"question": 6, "answer": 0.5}) == [("user", "6"), ("assistant", "0.5")]
    assert one({"instruction": "", "input": "1 + 1", "output": 2}) == [("user", "1 + 1"), ("assistant", "2")]


@pytest.mark.parametrize(
    ("record", "columns"),
    [
        ({"question": "why?"}, NOTHING),
        ({"question": "why?", "answer": "so"}, NOTHING),
        ({"question": "why?"}, Columns(completion="answer")),
        ({"q": "why?"}, Columns(prompt="q", completion="a")),
        ({"output": "so", "input": "why?"}, NOTHING),
    ],
)
def test_without_answers_the_messages_end_with_the_question(record: dict[str, Any], columns: Columns) -> None:
    assert one(record, columns, answered=False) == [("user", "why?")]
    found = resolve_columns(list(record), columns, "a.csv", answered=False)
    assert found.completion is None


def test_a_file_to_answer_needs_a_question() -> None:
    with pytest.raises(DataError) as caught:
        resolve_columns(["a", "answer"], NOTHING, "a.csv", answered=False)
    assert [problem.where for problem in caught.value.problems] == ["data.columns.prompt"]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"question": {"en": "a"}, "answer": "b"}, "data.columns.prompt: 'question' holds an object with the keys en"),
        ({"question": "a", "answer": {"en": "b"}}, "data.columns.completion: 'answer' holds an object with the keys"),
        ({"question": "a", "answer": {"en": "b"}}, "name a part of it, such as data.columns.completion=answer.en"),
        ({"question": "a", "answer": [{"en": "b"}]}, "'answer' holds an object with the keys en (row 7)"),
        ({"question": "a", "answers": {"start": [1]}}, "'answers' holds an object with the keys start (row 7)"),
        ({"question": "a", "answer": [["b"]]}, "'answer' holds a list of lists, not text (row 7)"),
        ({"question": b"a", "answer": "b"}, "'question' holds bytes, not text (row 7)"),
        ({"instruction": "a", "input": {"x": 1}, "output": "b"}, "data.columns.input: 'input' holds an object"),
        ({"question": "a", "answer": "b", "system": {"x": 1}}, "data.columns.system: 'system' holds an object"),
    ],
)
def test_a_value_that_is_no_text_is_refused(record: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        one(record)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "columns", "rows", "empty"),
    [
        ("alpaca/alpaca_en_demo.json", {}, 999, 0),
        ("alpaca/alpaca_zh_demo.json", {}, 1_000, 0),
        ("alpaca/identity.json", {}, 91, 0),
        ("alpaca/seed_tasks.jsonl", {"input": "instances.input", "completion": "instances.output"}, 175, 0),
        ("alpaca/user_oriented_instructions.jsonl", {"completion": "instances.output"}, 252, 0),
        ("alpaca/zh_seed_tasks.json", {"completion": "instances.output"}, 175, 0),
        ("eli5/eli5_1k.jsonl", {}, 1_000, 0),
        ("e2e_nlg/test.txt", {}, 4_693, 0),
    ],
)
def test_real_files(name: str, columns: dict[str, str], rows: int, empty: int, shared_data: Path) -> None:
    path = str(shared_data / name)
    config = DataSection(train=path, columns=Columns(**columns))
    table = read_source(path, config, "train")["train"]
    assert recognises(table.columns, config.columns)
    found = resolve_columns(table.columns, config.columns, path)
    conversations = [parse(record, found, path, row, {}) for record, row in zip(table.records, table.rows, strict=True)]
    assert len(conversations) == rows
    assert all([role for role, _ in turns(each)] == ["user", "assistant"] for each in conversations)
    assert sum(not each.answer for each in conversations) == empty
    assert all(each.messages[0].content for each in conversations)


def test_a_real_chinese_row(shared_data: Path) -> None:
    path = str(shared_data / "alpaca" / "alpaca_zh_demo.json")
    table = read_source(path, DataSection(train=path), "train")["train"]
    record = next(record for record in table.records if record["input"])
    found = resolve_columns(table.columns, NOTHING, path)
    assert turns(parse(record, found, path, 1, {})) == [
        ("user", record["instruction"] + "\n\n" + record["input"]),
        ("assistant", record["output"]),
    ]
