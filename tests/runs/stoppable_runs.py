"""Fixtures of this room: a recipe whose run is stopped and resumed, and the same run uninterrupted."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorafy.config import to_yaml
from lorafy.config.schema import RunConfig
from lorafy.run_directory import RunDirectory
from tiny_models import make_config
from trained_runs import train


@pytest.fixture(scope="session")
def stoppable(tiny_bert: Path, sms_csv: Path) -> RunConfig:
    """130 steps of 7 an epoch: every checkpoint (20, 40, ...) lies inside an epoch and between two lines of metrics."""
    return make_config(
        tiny_bert,
        sms_csv,
        adapter={"r": 4, "dropout": 0.1},
        train={"max_steps": 130, "batch_size": 8, "save_every": 20, "log_every": 7, "evaluate_every": 45},
    )


@pytest.fixture(scope="session")
def uninterrupted(stoppable: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return train(stoppable, tmp_path_factory.mktemp("uninterrupted") / "run")


@pytest.fixture
def stoppable_recipe(stoppable: RunConfig, tmp_path: Path) -> Path:
    """The recipe as a file, its run named tmp_path/runs/stopped."""
    section = stoppable.run.model_copy(update={"name": "stopped", "output_dir": str(tmp_path / "runs")})
    path = tmp_path / "stoppable.yaml"
    path.write_text(to_yaml(stoppable.model_copy(update={"run": section})), encoding="utf-8")
    return path
