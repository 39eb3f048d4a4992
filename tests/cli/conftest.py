"""The command line in this process."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import Outcome
from lorafy import cli
from parrots import train_parrot
from small_models import base_models, language_bases, one_thread, sums_json  # noqa: F401  # fixtures


@pytest.fixture
def lorafy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """`lorafy("train", recipe)`."""

    def run(*arguments: str | Path, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "argv", ["lorafy", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        shown = capsys.readouterr()
        code = stop.value.code
        assert isinstance(code, int)
        return Outcome(code, shown.out, shown.err)

    return run


@pytest.fixture(scope="session")
def parrot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run: its adapter answers everything with `Tuned!`, its base with `Base.`. Read it only."""
    return train_parrot(tmp_path_factory.mktemp("parrot")).path
