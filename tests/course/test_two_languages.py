"""Both languages of the course are complete: the same code, headings, formulas and figures' words in each."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from course.build import CHAPTERS, LANGUAGES, ChapterError, build, notebook, read_chapter

CHINESE = re.compile(r"[\u4e00-\u9fff]")
HEADING = re.compile(r"^#+ ", re.MULTILINE)
DISPLAYED = re.compile(r"\$\$.+?\$\$", re.DOTALL)
LINK = re.compile(r"\]\((http[^)]+)\)")

BY_STEM = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def twins(path: Path) -> list[tuple[NotebookNode, NotebookNode]]:
    texts = [cell for cell in read_chapter(path) if cell.cell_type == "markdown"]
    return list(zip(texts[::2], texts[1::2], strict=True))


def code_lines(path: Path, language: str) -> list[str]:
    cells = notebook(path, language).cells
    return [line for cell in cells if cell.cell_type == "code" for line in cell.source.split("\n")]


def test_the_nine_chapters_are_there() -> None:
    assert [path.stem[:2] for path in CHAPTERS] == [f"{number:02d}" for number in range(1, 10)]


def test_notebooks_are_written_and_valid(tmp_path: Path) -> None:
    written = build(tmp_path)
    assert len(written) == len(LANGUAGES) * len(CHAPTERS)
    for file in written:
        nbformat.validate(nbformat.read(file, as_version=4))
    again = build(tmp_path / "again")
    assert [file.read_bytes() for file in written] == [file.read_bytes() for file in again]


@BY_STEM
def test_code_differs_only_in_the_language(path: Path) -> None:
    english, chinese = (code_lines(path, language) for language in LANGUAGES)
    differing = [pair for pair in zip(english, chinese, strict=True) if pair[0] != pair[1]]
    assert differing == [('LANGUAGE = "en"', 'LANGUAGE = "zh"')]


@BY_STEM
def test_every_text_has_its_twin(path: Path) -> None:
    for english, chinese in twins(path):
        place = english.source[:60]
        assert not CHINESE.search(english.source), place
        assert CHINESE.search(chinese.source), place
        assert HEADING.findall(english.source) == HEADING.findall(chinese.source), place
        assert DISPLAYED.findall(english.source) == DISPLAYED.findall(chinese.source), place
        assert LINK.findall(english.source) == LINK.findall(chinese.source), place


@BY_STEM
def test_every_sentence_and_label_is_said_in_both_languages(path: Path) -> None:
    calls = [
        node
        for cell in read_chapter(path)
        if cell.cell_type == "code"
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("say", "label")
    ]
    assert calls, "a chapter says what its cells found"
    for call in calls:
        words = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert set(words) == set(LANGUAGES), ast.unparse(call)
        assert not CHINESE.search(words["en"]), ast.unparse(call)


PAIR = '# %% [markdown] lang="en"\n# Text.\n\n# %% [markdown] lang="zh"\n# 文字。\n\n'
START = '# %%\nLANGUAGE = "en"\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('# %% [markdown] lang="en"\n# Text.\n\n' + START, "cell 1: the last text has no twin"),
        ("# %% [markdown]\n# Text.\n\n" + START, "cell 1: a text is marked"),
        ('# %% [markdown] lang="en"\n# A.\n\n' + START + '\n# %% [markdown] lang="zh"\n# 甲。\n', "cell 1: an English"),
        (PAIR + "# %%\nx = 1\n", "found 0"),
        (PAIR + START + "\n" + START, "found 2"),
    ],
)
def test_an_incomplete_chapter_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "01_chapter.py"
    path.write_text(text, encoding="utf-8", newline="\n")
    with pytest.raises(ChapterError, match=complaint):
        read_chapter(path)


def test_both_readmes_name_every_chapter() -> None:
    for name in ("README.md", "README.zh-CN.md"):
        page = (CHAPTERS[0].parents[1] / name).read_text(encoding="utf-8")
        assert [path.stem for path in CHAPTERS if path.stem not in page] == []
