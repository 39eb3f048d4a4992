from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from made_up_run import SPAM, made_up_run

from lorafy.run_directory import RunDirectory


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunDirectory]:
    """make_run(labels, passed=..., with_gpu=...) -> a finished and evaluated run."""
    return lambda labels=SPAM, **choices: made_up_run(tmp_path / "sms-spam-1", labels, **choices)
