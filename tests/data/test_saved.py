"""`prepare --output` writes what datasets.load_from_disk reads, and what a recipe can take as data again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from transformers import AutoTokenizer

from lorafy import api
from lorafy.types import RunError


def test_prepared_splits_load_and_decode(
    tiny_bert: Path, sms_csv: Path, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    path = recipe({"model": {"path": tiny_bert}, "data": {"train": sms_csv, "labels": ["spam", "ham"]}})
    prepared = api.prepare(path, output=tmp_path / "prepared")
    saved: Any = datasets.load_from_disk(str(tmp_path / "prepared"))
    assert {name: len(split) for name, split in saved.items()} == {"train": 56, "validation": 8, "test": 16}
    assert saved["train"].features["label"].names == ["spam", "ham"]
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_bert)
    for row, example in zip(saved["test"], prepared.corpus.splits["test"], strict=True):
        assert tokenizer.decode(row["input_ids"]).replace(" ", "") == f"[CLS]{example.text}[SEP]".replace(" ", "")
        assert len(row["attention_mask"]) == len(row["input_ids"])
        assert ["spam", "ham"][row["label"]] == example.label
    again = api.prepare({"model": {"path": str(tiny_bert)}, "data": {"train": str(tmp_path / "prepared")}})
    assert again.corpus.label_names == ["spam", "ham"]
    texts = {name: [example.text for example in rows] for name, rows in again.corpus.splits.items()}
    assert texts == {name: [example.text for example in rows] for name, rows in prepared.corpus.splits.items()}


def test_an_output_that_is_there_is_refused(sms_csv: Path, recipe: Callable[..., Path], tmp_path: Path) -> None:
    path = recipe({"model": {"path": "minilm"}, "data": {"train": sms_csv}})
    with pytest.raises(RunError, match=r"is there already\n.*choose another --output"):
        api.prepare(path, output=tmp_path)
