"""Fixtures of several rooms: a base model of each architecture; one thread, because tiny products wait longer for a
second one than they compute."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from language_models import ARCHITECTURES, save_language_model, write_sums
from tiny_models import save_distilbert, save_gpt2, save_roberta


@pytest.fixture(scope="session")
def base_models(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> dict[str, Path]:
    """Folders of tiny base models by architecture. Read them only."""
    folder = tmp_path_factory.mktemp("bases")
    return {
        "bert": tiny_bert,
        "distilbert": save_distilbert(folder / "distilbert", tiny_bert),
        "roberta": save_roberta(folder / "roberta"),
        "gpt2": save_gpt2(folder / "gpt2"),
    }


@pytest.fixture(scope="session")
def language_bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny language models by architecture, all over bytes. Read them only."""
    folder = tmp_path_factory.mktemp("language_bases")
    return {name: save_language_model(name, folder / name) for name in ARCHITECTURES}


@pytest.fixture(scope="session")
def sums_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 small questions with answers, as text and target."""
    return write_sums(tmp_path_factory.mktemp("sums") / "sums.json")


@pytest.fixture(scope="session")
def stories(shared_data: Path) -> Path:
    """The folder of the real pretrained Llama of 260,000 parameters; the test is skipped where it is not."""
    folder = shared_data / "stories260K" / "hf"
    if not folder.is_dir():
        pytest.skip(f"the real weights are not here: {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
