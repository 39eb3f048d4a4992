"""What pre-flight sees in examples: refused, warned of, or noted."""

from __future__ import annotations

import pytest

from lorafy.config.schema import DataSection
from lorafy.data.corpus import Corpus
from lorafy.preflight import check_corpus, check_encoded
from lorafy.tasks import load_kind
from lorafy.types import DataError, Encoded, Example, Features, Finding

KIND = load_kind("classification")


def split(*rows: tuple[str, str]) -> list[Example]:
    return [Example(text, label, "a.csv", row) for row, (text, label) in enumerate(rows, start=2)]


def many(count: int, start: str = "text") -> list[Example]:
    return split(*((f"{start} {i}", "ab"[i % 2]) for i in range(count)))


def labelled(splits: dict[str, list[Example]], label_names: list[str]) -> Corpus:
    return Corpus(splits, label_names, "labelled", "classification", KIND.records)


def found(corpus: Corpus) -> list[Finding]:
    """What `prepare` asks of the examples: the checks of every task, and classification's own."""
    return check_corpus(corpus, KIND.check_examples(corpus))


def errors(corpus: Corpus) -> list[str]:
    with pytest.raises(DataError) as caught:
        found(corpus)
    return [f"{problem.where}: {problem.message}" for problem in caught.value.problems]


def test_nothing_is_found_where_all_is_well() -> None:
    assert found(labelled({"train": many(100), "test": many(60, "test")}, ["a", "b"])) == []


def test_a_label_only_outside_train_and_a_single_label_are_refused() -> None:
    corpus = labelled({"train": many(100), "validation": split(("x", "c"), ("y", "c"), ("z", "a"))}, ["a", "b"])
    assert errors(corpus) == ["data (labels): validation has labels that train does not show: 'c' (rows: 2)"]
    one = labelled({"train": split(*((f"t {i}", "ham") for i in range(9))), "test": many(60)}, ["ham", "spam"])
    assert "data (labels): every training row has the label 'ham': there is nothing to tell apart" in errors(one)


def test_a_column_of_numbers_or_texts_is_no_label() -> None:
    corpus = labelled({"train": split(*((f"t {i}", f"{i}.5") for i in range(60))), "test": split(("x", "1.5"))}, [])
    assert errors(corpus) == ["data (labels): 60 different labels in 60 training rows"]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (many(100), "nothing is held out, so the result cannot be measured"),
        (many(4), "no label has more than 2 different texts: too few to hold any out"),
        (split(*(("same", "ab"[i % 2]) for i in range(50))), "no label has more than 1 different text"),
    ],
)
def test_something_must_be_held_out(train: list[Example], message: str) -> None:
    (error,) = errors(labelled({"train": train}, ["a", "b"]))
    assert message in error


def test_warnings_and_notes() -> None:
    train = [*many(40), *split(("text 0", "b"), ("text 1 ", "b"))]
    test = [*split(("text 3", "b")), *many(5, "new")]
    findings = {f.message: f.level for f in found(labelled({"train": train, "test": test}, ["a", "b", "c"]))}
    assert findings == {
        "1 texts stand in train with different labels": "warning",
        "2 training rows repeat an earlier text": "note",
        "1 of 6 test rows have a text that train has too: the result is flattered": "warning",
        "only 6 test rows: the result will be rough (see its interval)": "warning",
        "no training row has the label c": "warning",
    }
    numbers = labelled({"train": split(*((str(i / 4), "ab"[i % 2]) for i in range(40))), "test": many(60)}, ["a", "b"])
    (finding,) = found(numbers)
    assert (finding.level, finding.message) == ("warning", "every training text is a number, such as '0.0'")
    rare = labelled({"train": [*many(100), *split(("x", "c"))], "test": many(60, "test")}, ["a", "b", "c"])
    (finding,) = found(rare)
    assert finding.message.startswith("'c' has 1 of 101 training rows")


@pytest.mark.parametrize(("cut", "level"), [(0, None), (5, "note"), (6, "warning")])
def test_truncated_texts_are_counted(cut: int, level: str | None) -> None:
    features = [Features([1, 2], [0], i, truncated=i < cut) for i in range(100)]
    corpus = labelled({"train": many(100)}, ["a", "b"])
    findings = check_encoded({"train": Encoded(features, [])}, 2, corpus, DataSection(train="a.csv"), [])
    assert [finding.level for finding in findings] == ([level] if level else [])
    if level:
        share = f"{cut}.0%"
        assert findings[0].message == f"{cut} of 100 train texts ({share}) are longer than 2 tokens and lose their end"
