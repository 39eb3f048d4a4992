"""Rows, balance, splits, padding: nothing lost, nothing twice, and the same by the same seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import lorafy.demo
from lorafy.scratch import (
    Batch,
    SpamDataset,
    create_balanced_dataset,
    drop_repeated,
    make_loader,
    random_split,
    read_messages,
)

ROWS = [(f"message {index}", int(index % 4 == 0)) for index in range(103)]
BUNDLED = Path(lorafy.demo.__file__).parent / "sms.csv"


class Letters:
    """A tokenizer for tests: a letter is a token."""

    pad_id = 0

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


def test_the_bundled_messages() -> None:
    rows = read_messages(BUNDLED)
    assert Counter(label for _, label in rows) == {0: 419, 1: 276}  # SOURCE.md
    assert rows[0] == ("The boss was in a right mood today so I hid in the stock room with the mop", 0)
    assert drop_repeated(rows) == rows


def test_the_original_file_and_the_csv_are_the_same_rows(shared_data: Path) -> None:
    rows = read_messages(shared_data / "sms_spam" / "SMSSpamCollection")
    assert rows == read_messages(shared_data / "sms_spam" / "sms_spam.csv")
    assert Counter(label for _, label in rows) == {0: 4827, 1: 747}
    assert len(rows) - len(drop_repeated(rows)) == 403  # SOURCE.md


def test_a_stray_quote_swallows_no_message(tmp_path: Path) -> None:
    path = tmp_path / "messages"
    path.write_text('ham\t"open quote\nspam\tfree\tprize\nham\t你好\n', encoding="utf-8", newline="\n")
    assert read_messages(path) == [('"open quote', 0), ("free\tprize", 1), ("你好", 0)]


def test_balancing_keeps_the_rarest_class_whole() -> None:
    balanced = create_balanced_dataset(ROWS, seed=1)
    assert Counter(label for _, label in balanced) == {0: 26, 1: 26}
    assert [row for row in balanced if row[1] == 1] == [row for row in ROWS if row[1] == 1]
    assert len(set(balanced)) == 52 and set(balanced) <= set(ROWS)
    assert balanced == sorted(balanced, key=ROWS.index)
    assert create_balanced_dataset(ROWS, seed=1) == balanced != create_balanced_dataset(ROWS, seed=2)


@pytest.mark.parametrize("count", [10, 97, 100, 103])
def test_a_split_loses_no_row(count: int) -> None:
    parts = random_split(ROWS[:count])
    assert sorted(row for part in parts for row in part) == sorted(ROWS[:count])
    sizes = [len(part) for part in parts]
    assert sizes[:2] == [round(0.7 * count), round(0.1 * count)]
    assert sum(sizes) == count


def test_a_split_is_shuffled_by_its_seed() -> None:
    assert random_split(ROWS) == random_split(ROWS) != random_split(ROWS, seed=4)
    train, _, _ = random_split(ROWS)
    assert train != sorted(train, key=ROWS.index)
    state = torch.get_rng_state()
    create_balanced_dataset(ROWS)
    random_split(ROWS)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="no rows"):
        random_split(ROWS, 0.9, 0.1)


def test_a_text_is_once_after_dropping_repeats() -> None:
    assert drop_repeated([("a", 0), ("b", 1), ("a", 1)]) == [("a", 0), ("b", 1)]


def test_rows_are_as_long_as_the_longest_training_row() -> None:
    train = SpamDataset(["abc", "z", ""], [0, 1, 0], Letters())
    assert train.max_length == 3
    assert train.ids.tolist() == [[97, 98, 99], [122, 0, 0], [0, 0, 0]]
    # An empty text still has one place to read.
    assert train.lengths.tolist() == [3, 1, 1]
    assert (train.labels.tolist(), train.num_cut) == ([0, 1, 0], 0)
    test = SpamDataset(["abcdef", "ab"], [1, 0], Letters(), train.max_length)
    assert test.ids.tolist() == [[97, 98, 99], [97, 98, 0]]
    assert (test.lengths.tolist(), test.num_cut) == ([3, 2], 1)
    assert [tensor.tolist() for tensor in test[1]] == [[97, 98, 0], 2, 0]
    with pytest.raises(ValueError, match="2 texts with 1 labels"):
        SpamDataset(["a", "b"], [0], Letters())


def text_of(batch: Batch, index: int) -> str:
    return Letters().decode(batch.ids[index, : batch.lengths[index]].tolist())


def test_batches_hold_every_row_once_in_an_order_of_their_own() -> None:
    dataset = SpamDataset.from_rows(ROWS, Letters())

    def orders(seed: int) -> list[list[str]]:
        torch.manual_seed(0)
        loader = make_loader(dataset, 8, shuffle=True, seed=seed)
        return [[text_of(batch, index) for batch in loader for index in range(len(batch.labels))] for _ in range(2)]

    first, second = orders(3)
    assert sorted(first) == sorted(second) == sorted(text for text, _ in ROWS)
    assert first != second
    assert [first, second] == orders(3) != orders(4)
    state = torch.get_rng_state()
    batches = list(make_loader(dataset, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(batch.labels) for batch in batches] == [8] * 12 + [7]
    assert torch.equal(torch.cat([batch.ids for batch in batches]), dataset.ids)
