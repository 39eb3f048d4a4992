"""The report runs nothing that stands in names and texts, its commands run nothing else, and a spreadsheet computes
nothing."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from strangers import LABELS, SCRIPT

from command_line import Outcome
from lorafy.inference.generate import Answer
from lorafy.inference.prompts import write_answers
from lorafy.inference.tables import spreadsheet_cell
from lorafy.report.html import quoted
from lorafy.run_directory import RunDirectory
from lorafy.types import Message

HARMLESS = {
    "html", "head", "meta", "title", "style", "body", "main", "p", "h1", "h2", "h3", "div", "dl", "dt", "dd", "table",
    "thead", "tbody", "tr", "th", "td", "span", "small", "br", "figure", "figcaption", "img", "details", "summary",
    "pre", "code", "b", "footer", "article", "section",
}  # fmt: skip


class Page(HTMLParser):
    """Elements and attributes of a page, and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes += [(name, value or "") for name, value in attributes]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_report_of_wild_names_is_a_page_of_texts(wild_run: Path) -> None:
    page = Page((wild_run / "report.html").read_text(encoding="utf-8"))
    assert page.elements <= HARMLESS, page.elements - HARMLESS
    assert [name for name, _ in page.attributes if name.startswith("on")] == []
    assert {value[:22] for name, value in page.attributes if name in ("src", "href")} == {"data:image/png;base64,"}
    assert f"[/a]{SCRIPT}" in page.text, "labels are shown as they are"
    assert "<img src=x onerror=alert(" in page.text, "texts too"
    assert "<b>model[/x]" in page.text, "and the model's name, in the settings"


def test_a_command_of_the_report_names_the_run_and_does_nothing_else(wild_run: Path) -> None:
    page = Page((wild_run / "report.html").read_text(encoding="utf-8"))
    command = next(line for line in re.findall(r"lorafy merge .*?--output DIR", page.text))
    assert shlex.split(command) == ["lorafy", "merge", str(wild_run), "--output", "DIR"]
    assert '"$(' not in command, "a shell looks into double quotes"


@pytest.mark.parametrize("name", ["$(reboot)", "`reboot`", 'a";reboot;"', "it's", "a\nreboot", "a|reboot", "<a>", "*"])
def test_a_path_is_one_word_of_a_shell(name: str) -> None:
    assert shlex.split(quoted(Path(name))) == [name]
    assert not quoted(Path(name)).startswith('"')


def test_formulas_become_texts_and_numbers_stay_numbers() -> None:
    for formula in ("=1+1", "+1 234", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "＝1+1", '=HYPERLINK("http://stranger")'):
        assert spreadsheet_cell(formula) == f"'{formula}"
    for value in ("-0.25", "+3", "-1e-05", "a = b", "", 0.5, None, "'=1"):
        assert spreadsheet_cell(value) == value


def test_written_predictions_compute_nothing(told: Callable[..., Outcome], wild_run: Path, tmp_path: Path) -> None:
    texts = ["=1+1", "-5", "@x", "plain"]
    assert told("predict", wild_run, "--output", tmp_path / "out.csv", "--", *texts).code == 0
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert [row[0] for row in rows] == ["'=1+1", "-5", "'@x", "plain"]
    assert not [cell for row in [header, *rows] for cell in row if spreadsheet_cell(cell) != cell]
    assert told("predict", wild_run, "--output", tmp_path / "out.jsonl", "--", *texts).code == 0
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == texts, "jsonl is exact"


def test_written_answers_compute_nothing(tmp_path: Path) -> None:
    write_answers(
        [[Message("user", "=1+1")]],
        {"tuned": [Answer('=WEBSERVICE("http://stranger")', 3, ended=True, looped=False)]},
        tmp_path / "out.csv",
    )
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file))[1] == ["'=1+1", '\'=WEBSERVICE("http://stranger")']


def test_wild_labels_are_drawn(wild_run: Path) -> None:
    assert (RunDirectory(wild_run).plots / "confusion_matrix.png").is_file(), LABELS
