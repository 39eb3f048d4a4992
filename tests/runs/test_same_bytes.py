"""The same recipes give the same adapter and the same results as when the digests were committed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from same_bytes import DIGESTS, digests, machine, runs


@pytest.mark.slow
@pytest.mark.parametrize("name", runs())
def test_the_same_bytes_as_committed(name: str, tmp_path: Path, shared_data: Path) -> None:
    known = json.loads(DIGESTS.read_text(encoding="utf-8"))
    if machine() not in known:
        pytest.skip(f"no digests were committed for {machine()}; tests/runs/same_bytes.py makes them")
    assert digests(name, tmp_path) == known[machine()][name]
