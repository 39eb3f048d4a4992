"""A verb in a process of its own, which knows nothing but what lies on disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..types import Problem, RunError


def run_verb(verb: str, path: Path, what: str, *, even_failed: bool = False) -> dict[str, Any]:
    """Runs `lorafy VERB PATH --json` and gives what it prints; its messages go to stderr. what: its name in
    messages, `the evaluation`.

    Raises RunError where it fails; with `even_failed` only where it fails without an answer: a failed check is one.
    """
    command = [sys.executable, "-m", "lorafy", verb, str(path), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=False)
    if not done.stdout.strip() or (done.returncode != 0 and not even_failed):
        message = f"{what} in a process of its own ended with exit code {done.returncode}"
        raise RunError(Problem(str(path), message, f"see its messages above; repeat: lorafy {verb} {path}"))
    return json.loads(done.stdout)
