"""Every chapter runs from a fresh kernel in an empty folder, without a network and without a warning."""

from __future__ import annotations

from pathlib import Path

import pytest
from execute import execute

from course.build import CHAPTERS

STEMS = [path.stem for path in CHAPTERS]


@pytest.mark.parametrize("chapter", STEMS)
def test_chapter_runs(chapter: str, tmp_path: Path) -> None:
    outcome = execute(chapter, "en", tmp_path)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert outcome.stdout.strip(), "a chapter says what it found"


@pytest.mark.slow
@pytest.mark.parametrize("chapter", STEMS)
def test_chapter_runs_in_chinese(chapter: str, tmp_path: Path) -> None:
    outcome = execute(chapter, "zh", tmp_path)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "does not have a glyph" not in outcome.stderr  # matplotlib logs it, it does not warn
    assert any("\u4e00" <= character <= "\u9fff" for character in outcome.stdout)
