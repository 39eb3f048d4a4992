"""Builds the notebooks: `python course/build.py` writes course/notebooks/en/*.ipynb and course/notebooks/zh/*.ipynb.

A chapter is one text file in jupytext's percent format. A markdown cell is marked lang="en" and followed by its twin
lang="zh"; a notebook keeps the cells of its own language. Code is shared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbformat import NotebookNode

COURSE = Path(__file__).resolve().parent
CHAPTERS = sorted((COURSE / "chapters").glob("[0-9][0-9]_*.py"))
LANGUAGES = ("en", "zh")
LANGUAGE_LINE = 'LANGUAGE = "en"'
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}

COLAB_CELL = """\
# Only on Google Colab: fetch lorafy and install it (about two minutes). Elsewhere this cell does nothing.
import sys

if "google.colab" in sys.modules:
    !git clone --quiet --depth 1 https://github.com/lorafy/lorafy
    !pip install --quiet "./lorafy[minilm]"
    %cd lorafy"""


class ChapterError(Exception):
    """A chapter that cannot become two notebooks: says which cell, and what is wrong with it."""


def read_chapter(path: Path) -> list[NotebookNode]:
    """The cells of both languages, in order. Raises ChapterError where a text has no twin."""
    cells = jupytext.read(path).cells
    check_twins(path, cells)
    starts = [cell for cell in cells if cell.cell_type == "code" and LANGUAGE_LINE in cell.source.splitlines()]
    if len(starts) != 1:
        raise ChapterError(f"{path.name}: the line {LANGUAGE_LINE} must stand in one code cell, found {len(starts)}")
    return cells


def check_twins(path: Path, cells: list[NotebookNode]) -> None:
    texts = [(number, cell) for number, cell in enumerate(cells, start=1) if cell.cell_type == "markdown"]
    for number, cell in texts:
        if cell.metadata.get("lang") not in LANGUAGES:
            raise ChapterError(f'{path.name}, cell {number}: a text is marked lang="en" or lang="zh"')
    for (number, english), (next_number, chinese) in zip(texts[::2], texts[1::2], strict=False):
        together = next_number == number + 1
        if not together or (english.metadata["lang"], chinese.metadata["lang"]) != LANGUAGES:
            raise ChapterError(f"{path.name}, cell {number}: an English text is followed at once by its Chinese twin")
    if len(texts) % 2:
        raise ChapterError(f"{path.name}, cell {texts[-1][0]}: the last text has no twin")


def notebook(path: Path, language: str) -> NotebookNode:
    """A chapter in one language, as a valid notebook. The same chapter gives the same bytes."""
    cells: list[Any] = [nbformat.v4.new_code_cell(COLAB_CELL)]
    for cell in read_chapter(path):
        if cell.cell_type == "code":
            lines = cell.source.splitlines()
            lines = [f'LANGUAGE = "{language}"' if line == LANGUAGE_LINE else line for line in lines]
            cells.append(nbformat.v4.new_code_cell("\n".join(lines)))
        elif cell.metadata["lang"] == language:
            cells.append(nbformat.v4.new_markdown_cell(cell.source))
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    built = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
    nbformat.validate(built)
    return built


def build(target: Path) -> list[Path]:
    """Writes every chapter in both languages below `target` and returns the files."""
    written = []
    for language in LANGUAGES:
        folder = target / language
        folder.mkdir(parents=True, exist_ok=True)
        for path in CHAPTERS:
            file = folder / f"{path.stem}.ipynb"
            file.write_text(nbformat.writes(notebook(path, language)) + "\n", encoding="utf-8", newline="\n")
            written.append(file)
    return written


if __name__ == "__main__":
    files = build(COURSE / "notebooks")
    print(f"{len(files)} notebooks written below {COURSE / 'notebooks'}")
