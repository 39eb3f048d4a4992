from __future__ import annotations

from pathlib import Path

import pytest

from lorafy.config.schema import RunConfig
from lorafy.run_directory import RunDirectory
from small_models import base_models, language_bases, one_thread, stories, sums_json  # noqa: F401  # fixtures
from tiny_models import make_config
from trained_runs import train


@pytest.fixture(scope="session")
def short(tiny_bert: Path, sms_csv: Path) -> RunConfig:
    settings = {"max_steps": 10, "batch_size": 8, "save_every": 5, "learning_rate": 2e-2}
    return make_config(tiny_bert, sms_csv, adapter={"dropout": 0.1}, train=settings)


@pytest.fixture(scope="session")
def finished(short: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A trained adapter. Read it only."""
    return train(short, tmp_path_factory.mktemp("pains") / "run")
