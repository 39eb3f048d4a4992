"""A raw record becomes an Example: columns, dotted paths, the one spelling of a label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lorafy.config.schema import Columns, DataSection, ModelSection, RunConfig
from lorafy.data.labelled import ClassRecords
from lorafy.formats.labelled import label_text, parse, resolve_columns, value_at
from lorafy.types import DataError, Example

NOTHING = Columns(text=None)
RECIPE = RunConfig(model=ModelSection(path="minilm"), data=DataSection(train="a.jsonl"))


def one(
    record: dict[str, Any], columns: Columns, row: int = 1, label_names: Mapping[str, list[str]] | None = None
) -> Example:
    """A record as classification learns from it: the label by its one spelling."""
    return ClassRecords().accept(parse(record, columns, "a.jsonl", row, label_names or {}), RECIPE)


@pytest.mark.parametrize(
    ("value", "spelling"),
    [
        (1, "1"),
        (1.0, "1"),
        ("1", "1"),
        (0.5, "0.5"),
        (-1, "-1"),
        (True, "true"),
        (False, "false"),
        (" ham ", "ham"),
        ("", None),
        ("  ", None),
        (None, None),
        (float("nan"), None),
        ("体育", "体育"),
    ],
)
def test_a_label_has_one_spelling(value: Any, spelling: str | None) -> None:
    assert label_text(value) == spelling


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("plain", "x"),
        ("list", "first"),
        ("answers.text", "a1"),
        ("turns.content", "hello"),
        ("a.b", "the key has a dot"),
        ("plain.deeper", None),
        ("empty", None),
        ("empty.text", None),
        ("absent.text", None),
    ],
)
def test_a_dotted_path_reaches_into_a_record_and_takes_the_first_of_a_list(path: str, value: Any) -> None:
    record = {
        "plain": "x",
        "list": ["first", "second"],
        "answers": {"text": ["a1", "a2"]},
        "turns": [{"content": "hello"}, {"content": "bye"}],
        "a.b": "the key has a dot",
        "a": {"b": "another"},
        "empty": [],
    }
    assert value_at(record, path) == value


@pytest.mark.parametrize(
    ("names", "columns", "found"),
    [
        (["label", "text"], NOTHING, ("text", None, "label")),
        (["v1", "v2", "", ""], NOTHING, ("v2", None, "v1")),
        (["Sentence", "Label", "idx"], NOTHING, ("Sentence", None, "Label")),
        (["premise", "hypothesis", "label"], NOTHING, ("premise", "hypothesis", "label")),
        (["question", "sentence", "label"], NOTHING, ("question", "sentence", "label")),
        (["title", "content", "class"], Columns(text="title", text_pair="content"), ("title", "content", "class")),
        (["answers", "topic"], Columns(text="answers.text", label="topic"), ("answers.text", None, "topic")),
        (["0", "1"], Columns(text=1, label=0), ("1", None, "0")),
    ],
)
def test_columns_are_named_or_found(names: list[str], columns: Columns, found: tuple[str, str | None, str]) -> None:
    resolved = resolve_columns(names, columns, "a.csv")
    assert (resolved.text, resolved.text_pair, resolved.label) == found


@pytest.mark.parametrize(
    ("names", "columns", "message"),
    [
        (["label", "text"], Columns(text="texts"), "data.columns.text: no column 'texts' in a.csv; it has label, text"),
        (["label", "text"], Columns(text="texts"), "did you mean text?"),
        (["a", "b"], NOTHING, "data.columns.text: found no column for the text in a.csv; it has a, b"),
        (["a", "b"], NOTHING, "data.columns.label: found no column for the label in a.csv"),
        (["a", "b"], NOTHING, "in a file without a header line, its position counted from 0"),
        (["0", "1"], Columns(text=5, label=0), "data.columns.text: no column '5' in a.csv; it has 0, 1"),
        (["label", "text"], Columns(label="text"), "data.columns: 'text' of a.csv is taken twice"),
    ],
)
def test_a_column_that_is_not_there_is_named_with_those_that_are(
    names: list[str], columns: Columns, message: str
) -> None:
    with pytest.raises(DataError) as caught:
        resolve_columns(names, columns, "a.csv")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": {"en": "a"}, "label": 1}, "data.columns.text: 'text' holds an object with the keys en (row 7)"),
        ({"text": {"en": "a"}, "label": 1}, "name a part of it, such as data.columns.text=text.en"),
        ({"text": b"a", "label": 1}, "data.columns.text: 'text' holds bytes, not text (row 7)"),
        ({"text": [["a"]], "label": 1}, "data.columns.text: 'text' holds a list of lists"),
        ({"text": "a", "label": {"x": 1}}, "data.columns.label: 'label' holds an object with the keys x"),
        (
            {"text": "a", "label": [1, 2]},
            "data.columns.label: a text holds 2 labels (row 7): one label a text is learned",
        ),
        ({"text": "a", "label": [[1]]}, "data.columns.label: 'label' holds a list of lists"),
    ],
)
def test_a_value_that_is_no_text_is_refused_rather_than_printed_into_the_data(
    record: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        one(record, Columns(text="text", label="label"), 7)
    assert message in str(caught.value)


def test_class_indices_become_their_names_and_minus_one_becomes_none() -> None:
    columns, names = Columns(text="text", label="label"), {"label": ["neg", "pos"]}
    labels = [one({"text": "a", "label": value}, columns, label_names=names).label for value in (0, 1, -1, 2, None)]
    assert labels == ["neg", "pos", None, None, None]


def test_a_missing_text_is_empty_and_a_number_is_its_digits() -> None:
    columns = Columns(text="text", text_pair="other", label="label")
    first = one({"text": None, "other": 3, "label": ["x"]}, columns)
    assert (first.text, first.text_pair, first.label) == ("", "3", "x")
