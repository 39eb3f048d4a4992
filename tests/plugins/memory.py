"""A tracker that lorafy does not know: it keeps records where a test finds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RECORDS: list[Mapping[str, Any]] = []


class Memory:
    def log(self, record: Mapping[str, Any]) -> None:
        RECORDS.append(record)

    def close(self) -> None:
        RECORDS.append({"closed": True})


def open_tracker(run: Any, resume_step: int | None) -> Memory:
    return Memory()
