"""One notebook, two languages: what a cell prints or draws is said in the language the notebook is written in."""

from __future__ import annotations

from typing import Protocol

import matplotlib.pyplot as plt

from lorafy.report.fonts import find_family
from lorafy.report.style import BASE_FAMILY, STYLE

LANGUAGES = ("en", "zh")
CHINESE_SAMPLE = set("低秩适配")


class Sentence(Protocol):
    def __call__(self, *, en: str, zh: str) -> None: ...


class Label(Protocol):
    def __call__(self, *, en: str, zh: str) -> str: ...


def start(language: str) -> tuple[Sentence, Label]:
    """`say` prints a sentence, `label` returns a text for a figure; figures get the course's look.

    Where no Chinese font is installed, figures are labelled in English: better than empty boxes.
    """
    assert language in LANGUAGES, f"LANGUAGE is {language!r}, it must be one of {LANGUAGES}"
    family = find_family(CHINESE_SAMPLE) if language == "zh" else None
    plt.rcParams.update(STYLE)
    plt.rcParams.update(
        {
            # The Chinese font first: text beside a formula is drawn in the first font alone.
            "font.family": [family, BASE_FAMILY] if family else [BASE_FAMILY],
            "text.parse_math": True,  # the course's labels are formulas; no user's text is drawn
            "figure.constrained_layout.use": True,
            "figure.dpi": 110,
        }
    )
    chinese_figures = family is not None

    def say(*, en: str, zh: str) -> None:
        print(zh if language == "zh" else en)

    def label(*, en: str, zh: str) -> str:
        return zh if chinese_figures else en

    return say, label
