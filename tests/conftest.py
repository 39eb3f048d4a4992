"""Fixtures that every room's tests share: a tiny model, a small learnable table, a recipe to write."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Before anything imports transformers or datasets: no test reaches for the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tiny models gain nothing from threads, and threads of two processes on the same cores wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import yaml

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

SPAM = (
    "win a {} now , call the number to claim your prize",
    "free {} waiting for you , text back today",
    "urgent : your {} has been selected , claim cash now",
    "you won a {} ! reply with your code to claim",
)
HAM = (
    "are you coming home for the {} tonight",
    "i left the {} on the kitchen table , see you later",
    "can we talk about the {} tomorrow morning",
    "thanks for the {} , it was lovely to see you",
)
THINGS = ("phone", "ticket", "book", "cake", "car", "holiday", "lunch", "music", "bag", "garden")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that reads ../shared/data carries the mark `shared`, so that `-m 'not shared'` leaves it out."""
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "shared: reads the real data in ../shared/data, which a user does not have")


@pytest.fixture(scope="session")
def sms_rows() -> list[tuple[str, str]]:
    """80 pairs (label, text), half ham, half spam, no text twice, easy to learn."""
    rows = [(label, form.format(thing)) for label, forms in (("spam", SPAM), ("ham", HAM)) for form in forms
            for thing in THINGS]  # fmt: skip
    random.Random(0).shuffle(rows)
    return rows


@pytest.fixture(scope="session")
def sms_csv(tmp_path_factory: pytest.TempPathFactory, sms_rows: list[tuple[str, str]]) -> Path:
    """The rows as a csv file with the columns label and text."""
    path = tmp_path_factory.mktemp("sms") / "sms.csv"
    lines = [f'{label},"{text}"\n' for label, text in sms_rows]
    path.write_text("label,text\n" + "".join(lines), encoding="utf-8", newline="\n")
    return path


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory, sms_rows: list[tuple[str, str]]) -> Path:
    """A saved BertModel of 2 layers and width 32 with a WordPiece tokenizer that covers `sms_rows`. Read it only."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("tiny_bert")
    words = sorted({word for _, text in sms_rows for word in text.split()})
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("0123456789.,!?:'-")
    pieces = [f"##{letter}" for letter in letters if letter.isalnum()]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *pieces]
    vocabulary += [word for word in words if word not in vocabulary]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8", newline="\n")
    tokenizer = BertTokenizer.from_pretrained(folder, model_max_length=64)
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data beside the repository; the test is skipped where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real data is not here: {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tree as a recipe in this test's folder and returns its path."""

    def write(tree: Mapping[str, Any] | str, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        text = tree if isinstance(tree, str) else yaml.safe_dump(_plain(tree), allow_unicode=True, sort_keys=False)
        path.write_text(text, encoding="utf-8", newline="\n")
        return path

    return write


@pytest.fixture
def load_data() -> Callable[..., Any]:
    """`load_data(train=path, seed=1, **more of the data section)` gives the Corpus, or raises what the user sees."""
    from lorafy.config import parse_config
    from lorafy.models.load import open_source
    from lorafy.tasks import read_corpus

    def load(train: Path | str, *, seed: int = 42, **data: Any) -> Any:
        tree = {"run": {"seed": seed}, "model": {"path": "minilm"}, "data": {"train": train, **data}}
        config = parse_config(_plain(tree), "the test")
        return read_corpus(config, open_source(config.model))

    return load


def _plain(value: Any) -> Any:
    """Paths as text, so that a recipe may be written with them."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
