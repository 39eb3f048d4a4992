"""Sampling, splitting and balancing: shares, duplicates, what each row becomes, and the seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorafy.types import DataError

Load = Callable[..., Any]


def texts(corpus: Any, split: str) -> list[str]:
    return [example.text for example in corpus.splits[split]]


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    def write(rows: list[tuple[str, str]], name: str = "table.csv") -> Path:
        path = tmp_path / name
        path.write_text("label,text\n" + "".join(f"{label},{text}\n" for label, text in rows), encoding="utf-8")
        return path

    return write


def test_the_real_messages_split_70_10_20_with_equal_texts_together(shared_data: Path, load_data: Load) -> None:
    corpus = load_data(shared_data / "sms_spam" / "sms_spam.csv")
    splits = corpus.splits
    keys = {name: {example.key for example in examples} for name, examples in splits.items()}
    everything = [example for examples in splits.values() for example in examples]
    assert len(everything) == 5_574
    assert len({example.text for example in everything}) == 5_574 - 403  # as the file's SOURCE.md counts
    assert not keys["train"] & keys["validation"]
    assert not keys["train"] & keys["test"]
    assert not keys["validation"] & keys["test"]
    spam = sum(example.label == "spam" for example in everything) / len(everything)
    for name, share in zip(("train", "validation", "test"), (0.7, 0.1, 0.2), strict=True):
        assert len(splits[name]) / len(everything) == pytest.approx(share, abs=0.002)
        part = sum(example.label == "spam" for example in splits[name]) / len(splits[name])
        assert part == pytest.approx(spam, abs=0.002)


def test_the_seed_alone_decides(sms_csv: Path, load_data: Load) -> None:
    options: dict[str, Any] = {"max_rows": 60, "balance": "downsample"}
    first = load_data(sms_csv, seed=7, **options)
    again = load_data(sms_csv, seed=7, **options)
    other = load_data(sms_csv, seed=8, **options)
    assert first.summary() == again.summary()
    assert first.splits == again.splits
    assert texts(first, "test") != texts(other, "test")
    assert {name: len(rows) for name, rows in first.splits.items()} == {"train": 42, "validation": 6, "test": 12}


@pytest.mark.parametrize(
    ("given", "cut"),
    [
        ((), {"train": 56, "validation": 8, "test": 16}),
        (("test",), {"train": 70, "validation": 10, "test": 80}),  # 0.1 / (0.7 + 0.1) of train
        (("validation",), {"train": 80, "validation": 80}),
        (("validation", "test"), {"train": 80, "validation": 80, "test": 80}),
    ],
)
def test_what_is_not_given_is_cut_from_train(
    given: tuple[str, ...], cut: dict[str, int], sms_csv: Path, load_data: Load
) -> None:
    corpus = load_data(sms_csv, **dict.fromkeys(given, sms_csv))
    assert {name: len(rows) for name, rows in corpus.splits.items()} == cut


def test_max_rows_and_balance_name_what_they_leave_out(table: Callable[..., Path], load_data: Load) -> None:
    rows = [("rare" if i % 5 == 0 else "common", f"text {i}") for i in range(500)]
    validation = table([("rare", "v 1"), ("common", "v 2")], "validation.csv")
    corpus = load_data(table(rows), validation=validation, max_rows=100, balance="downsample")
    assert Counter(example.label for example in corpus.splits["train"]) == {"rare": 20, "common": 20}
    assert len(corpus.splits["validation"]) == 2  # neither setting touches what is measured on
    assert [note.message for note in corpus.notes] == [
        "100 of 500 rows of train drawn",
        "40 of 100 training rows kept",
    ]
    everything = load_data(table(rows), max_rows=10_000)
    assert sum(len(rows) for rows in everything.splits.values()) == 500


def test_a_share_of_zero_gives_no_split(sms_csv: Path, load_data: Load) -> None:
    assert sorted(load_data(sms_csv, split=[0.8, 0, 0.2]).splits) == ["test", "train"]
    assert sorted(load_data(sms_csv, split=[0.8, 0.2, 0]).splits) == ["train", "validation"]


def test_labels_get_the_recipes_names(table: Callable[..., Path], load_data: Load) -> None:
    path = table([(str(i % 2), f"text {i}") for i in range(40)])
    corpus = load_data(path, labels=["ham", "spam"])
    assert corpus.label_names == ["ham", "spam"]
    for example in corpus.splits["train"]:
        assert example.label == ("ham", "spam")[int(example.text.split()[1]) % 2]
    with pytest.raises(DataError) as caught:
        load_data(table([(str(i % 3), f"text {i}") for i in range(40)]), labels=["ham", "spam"])
    assert str(caught.value) == (
        "data.labels: labels 2 of train are neither these names nor 0 to 1\n    -> 2 names are given: ham, spam"
    )


def test_rows_without_text_or_label_are_counted_and_numbered(tmp_path: Path, load_data: Load) -> None:
    lines = [f"{'' if i in (3, 4) else i % 2},{'  ' if i % 5 == 0 else f'text {i}'}" for i in range(40)]
    path = tmp_path / "holes.csv"
    path.write_text("label,text\n" + "\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_data(path)
    assert [problem.message for problem in caught.value.problems] == [
        f"8 of 40 rows without text in {path}: row 2, 7, 12, 17, 22, ...",
        f"2 of 40 rows without a label in {path}: row 5, 6",
    ]
