"""Fixtures of this room: models of each family without dropout and with it, data for each, a model of none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families import CLASSIFIERS, FAMILIES, save_family, write_ragged_answers, write_ragged_texts
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from language_models import byte_tokenizer
from lorafy.plugins import plugin_names
from tiny_models import with_dropout


@pytest.fixture(scope="session")
def family_bases(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> dict[str, Path]:
    """Without any dropout. Read them only."""
    folder = tmp_path_factory.mktemp("families")
    saved = {name: save_family(name, folder / name, tiny_bert) for name in FAMILIES}
    return {name: with_dropout(base, folder / f"{name}-0", 0.0) for name, base in saved.items()}


@pytest.fixture(scope="session")
def dropping_bases(tmp_path_factory: pytest.TempPathFactory, family_bases: dict[str, Path]) -> dict[str, Path]:
    """Everything that can drop does."""
    folder = tmp_path_factory.mktemp("dropping")
    return {name: with_dropout(base, folder / name, 0.2) for name, base in family_bases.items()}


@pytest.fixture(scope="session")
def ragged(tmp_path_factory: pytest.TempPathFactory, sms_rows: list[tuple[str, str]]) -> dict[str, Path]:
    """For each family, data of its task."""
    folder = tmp_path_factory.mktemp("ragged")
    texts = write_ragged_texts(folder / "texts.csv", sms_rows)
    answers = write_ragged_answers(folder / "answers.json", sms_rows)
    return {name: texts if name in CLASSIFIERS else answers for name in FAMILIES}


@pytest.fixture(scope="session")
def neox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of an architecture that the fast path does not know."""
    folder, tokenizer = tmp_path_factory.mktemp("neox"), byte_tokenizer()
    config = GPTNeoXConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
        bos_token_id=256,
        eos_token_id=256,
    )
    assert config.model_type not in plugin_names("engine/families"), "take another one"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPTNeoXForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
