"""metrics.jsonl, the source of truth: one object a line, whole lines only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..run_directory import RunDirectory, read_jsonl, write_text


class JsonlTracker:
    def __init__(self, run: RunDirectory, resume_step: int | None):
        # What was logged after the checkpoint is about to be computed again.
        kept = [] if resume_step is None else [r for r in read_jsonl(run.metrics) if r["step"] <= resume_step]
        write_text(run.metrics, "".join(_line(record) for record in kept))
        self._file = run.metrics.open("a", encoding="utf-8", newline="\n")

    def log(self, record: Mapping[str, Any]) -> None:
        self._file.write(_line(record))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def open_tracker(run: RunDirectory, resume_step: int | None) -> JsonlTracker:
    return JsonlTracker(run, resume_step)
