"""ranks.jsonl: the ranks of the adapted layers, a line for each step behind which they are other ones."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..run_directory import RunDirectory, read_jsonl, write_text


class RankLog:
    """Writes `{"step": 20, "ranks": {"encoder.layer.0.output.dense": 12, ...}}`; step 0 is the start."""

    def __init__(self, run: RunDirectory, resume_step: int | None):
        # What was logged behind the checkpoint is about to be computed again.
        kept = [] if resume_step is None else [line for line in read_jsonl(run.ranks) if line["step"] <= resume_step]
        write_text(run.ranks, "".join(map(_line, kept)))
        self._before = kept[-1]["ranks"] if kept else None
        self._file = run.ranks.open("a", encoding="utf-8", newline="\n")

    def log(self, step: int, ranks: Mapping[str, int] | None) -> None:
        """Writes a line where the ranks are others than those of the line before."""
        if ranks != self._before:
            self._file.write(_line({"step": step, "ranks": ranks}))
            self._file.flush()
            self._before = ranks

    def close(self) -> None:
        self._file.close()


def _line(record: Mapping[str, object]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
