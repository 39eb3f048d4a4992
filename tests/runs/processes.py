"""Real processes: `python -m lorafy ...`, watched and stopped; and the command line inside this process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lorafy import cli
from lorafy.run_directory import RunDirectory

PATIENCE_SECONDS = 120


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Its stderr is a pipe; one thread, as in the process of the tests."""
    command = [sys.executable, "-m", "lorafy", *(str(argument) for argument in arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8"
    )


def wait_for_checkpoint(process: subprocess.Popen[str], run: RunDirectory) -> None:
    """Returns within a millisecond or two of the first checkpoint."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while run.named_step("last") is None:
        assert process.poll() is None, f"ended with {process.returncode}: {process.stderr and process.stderr.read()}"
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.001)


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """The exit code of `lorafy ...`, in this process."""
    monkeypatch.setattr(sys, "argv", ["lorafy", *(str(argument) for argument in arguments)])
    try:
        cli.main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0
