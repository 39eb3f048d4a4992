"""docs/config.md is what the generator prints, and its claims about keys are the schema's."""

from __future__ import annotations

from pathlib import Path

from lorafy.config.problems import all_keys
from lorafy.config.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "config.md"


def test_page_is_generated() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "python -m lorafy.config.reference > docs/config.md"


def test_every_key_has_one_complete_row() -> None:
    rows = [line.strip("| ").split(" | ") for line in reference().splitlines() if line.startswith("| `")]
    assert [row[0].strip("`") for row in rows] == list(all_keys())
    assert all(len(row) == 4 and all(row) for row in rows)
