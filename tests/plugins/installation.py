"""The plug-ins of this folder, installed as another package would be: by entry points, in this process and in those
that it starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ADDED = {
    "tasks": {"yes_no": "yes_no"},
    "adapters": {"bitfit": "bitfit"},
    "formats": {"shouted": "shouted"},
    "trackers": {"memory": "memory"},
    "preflight": {"shouting": "shouting"},
    "engine.families": {"shy_gpt2": "family"},
}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As `pip install` leaves it, for the length of a test."""
    info = tmp_path / "site" / "lorafy_plugins-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lorafy-plugins\nVersion: 1.0\n", encoding="utf-8")
    groups = (
        f"[lorafy.{seam}]\n" + "".join(f"{name} = {module}\n" for name, module in names.items())
        for seam, names in ADDED.items()
    )
    (info / "entry_points.txt").write_text("\n".join(groups), encoding="utf-8")
    here = [str(Path(__file__).parent), str(info.parent)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*here, os.environ.get("PYTHONPATH", "")]))
    for path in here:
        monkeypatch.syspath_prepend(path)
    yield
