"""The four-panel figure: drawn from any history, the same facts in both languages, no empty boxes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from course import figures
from course.figures import WORDS, Language, language_and_fonts, plot_training_curves
from lorafy.scratch import History

HISTORIES = {
    "usual": History([0, 50, 80], [0.9, 0.4, 0.1], [0.8, 0.4, 0.2], [0.45, 0.85, 1.0], [0.54, 0.82, 0.9], 12.0),
    "worse": History([0, 20], [0.7, 0.69], [0.69, 0.7], [0.6, 0.602], [0.62, 0.58], 3.0),
    "not trained": History([0], [0.7], [0.7], [0.0], [0.1], 0.1),
}


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
@pytest.mark.parametrize("language", WORDS)
def test_a_figure_is_drawn(language: Language, history: History, tmp_path: Path) -> None:
    path = plot_training_curves(history, tmp_path / "curves.png", language)
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_both_languages_tell_the_same_facts() -> None:
    assert WORDS["en"].keys() == WORDS["zh"].keys()
    for name, english in WORDS["en"].items():
        assert sorted(re.findall("{.*?}", english)) == sorted(re.findall("{.*?}", WORDS["zh"][name])), name


def test_without_a_chinese_font_the_labels_are_english(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(figures, "find_family", lambda characters: None)
    assert language_and_fonts("zh")[0] == "en"
    assert "install fonts-noto-cjk" in capsys.readouterr().out
    with pytest.raises(ValueError, match="not one of en, zh"):
        language_and_fonts("de")  # type: ignore[arg-type]  # what is refused
