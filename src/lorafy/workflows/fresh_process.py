"""A verb in a process of its own, which knows nothing but what lies on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..types import Problem, RunError


def run_verb(
    verb: str, path: Path, what: str, settings: Sequence[str] = (), *, even_failed: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """Runs `lorafy VERB PATH SETTINGS --json` and gives what it prints; its messages go to stderr, or with `quiet`
    nowhere. what: its name in messages, `the evaluation`.

    Raises RunError where it fails; with `even_failed` only where it fails without an answer: a failed check is one.
    """
    # -P: no module is imported from the current folder, where the data of others may lie.
    command = [sys.executable, "-P", "-m", "lorafy", verb, str(path), *settings, "--json"]
    stderr = subprocess.DEVNULL if quiet else None
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=stderr, encoding="utf-8", env=_environment(), check=False
    )
    if not done.stdout.strip() or (done.returncode != 0 and not even_failed):
        message = f"{what} in a process of its own ended with exit code {done.returncode}"
        repeat = " ".join(["lorafy", verb, str(path), *settings])
        raise RunError(Problem(str(path), message, f"see its messages above; repeat: {repeat}"))
    return json.loads(done.stdout)


def _environment() -> dict[str, str]:
    """This process's, PYTHONPATH without empty entries: Python takes each of them (`$PYTHONPATH:folder` leaves one) for
    the current folder."""
    folders = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
