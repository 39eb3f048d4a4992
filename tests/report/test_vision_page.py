"""What the report shows of a vision-language model: sample answers with their pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_up_run import language_compare_rows, language_results, made_up_language_run, summary
from rich.console import Console
from test_html import read

from lorafy.cli.results import print_samples
from lorafy.pictures.thumbnail import thumbnail
from lorafy.report.language import compared_samples
from lorafy.report.sections import Samples
from lorafy.report.vision import VisionView
from lorafy.run_directory import RunDirectory, write_json
from lorafy.types import Picture
from picture_files import quarters, saved

VIEW = VisionView()
HOSTILE = 'images/"><script>alert(1)</script>.jpg'


def shown(name: str, turned: int = 0) -> dict[str, str]:
    return {"name": name, "thumbnail": thumbnail(Picture(name, data=saved(quarters().rotate(turned))))}


def seeing_results() -> dict[str, Any]:
    """The first sample without a picture, the second with one, the third with two."""
    pictures = [[], [shown("images/a.png")], [shown("images/b.png", 180), shown(HOSTILE)]]
    results = language_results()
    samples = [
        sample | ({"pictures": own} if own else {}) for sample, own in zip(results["samples"], pictures, strict=True)
    ]
    return results | {"task": "vision_language", "samples": samples}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = made_up_language_run(tmp_path / "seer-1")
    write_json(run.summary, summary() | {"task": "vision_language"})
    write_json(run.eval_results, seeing_results())
    return run


def test_the_page_shows_the_pictures_beside_the_prompt_and_loads_nothing(run: RunDirectory) -> None:
    page = read(run)
    source = run.report.read_text(encoding="utf-8")
    assert page.loads == [
        picture["thumbnail"] for sample in seeing_results()["samples"] for picture in sample.get("pictures", [])
    ]
    assert len(page.loads) == 3
    assert 'alt="images/a.png"' in source
    assert "script" not in page.tags and HOSTILE in page.text, "a name is shown, never run"
    assert source.count('<div class="shown">') == 2
    assert f'lorafy generate {run.path} --image picture.jpg --prompt "text"' in page.text
    assert "/image PATH shows a picture" in page.text and f"lorafy chat {run.path}" in page.text


def test_what_is_no_small_jpeg_is_named_and_not_loaded(run: RunDirectory) -> None:
    results = seeing_results()
    results["samples"][1]["pictures"][0]["thumbnail"] = "https://example.com/a.jpg"
    write_json(run.eval_results, results)
    page = read(run)
    assert len(page.loads) == 2 and "images/a.png" in page.text
    assert "example.com" not in run.report.read_text(encoding="utf-8")


def test_a_page_without_pictures_has_no_place_for_them(tmp_path: Path) -> None:
    run = made_up_language_run(tmp_path / "stories-1")
    read(run)
    assert 'class="shown"' not in run.report.read_text(encoding="utf-8")


def test_a_comparison_tells_apart_questions_about_different_pictures(tmp_path: Path) -> None:
    base, lora, full = language_compare_rows()
    rows = []
    for row in (base, lora, full):
        answers = [
            {"prompt": "<image>What?", "reference": "R", "answer": f"{row['method']} {n}", "pictures": [picture]}
            for n, picture in enumerate((shown("a.png"), shown("a.png", 180), shown("b.png")))
        ]
        rows.append(row | {"task": "vision_language", "samples": answers})
    found = compared_samples(rows)
    said = [[column.text for column in sample.columns if column.kind != "reference"] for sample in found]
    assert said == [[f"base {n}", f"lora {n}", f"full {n}"] for n in range(3)]
    assert [sample.pictures[0].name for sample in found] == ["a.png", "a.png", "b.png"]
    run = RunDirectory(tmp_path)
    write_json(run.compare_results, {"rows": rows})
    assert len([load for load in read(run).loads if "jpeg" in load]) == 3


def test_the_row_of_a_comparison_keeps_the_pictures() -> None:
    row = VIEW.comparison_row(seeing_results(), "base")
    assert [len(sample.get("pictures", [])) for sample in row["samples"]] == [0, 1, 2]
    assert "pictures" not in row["samples"][0]


def test_the_terminal_names_the_pictures() -> None:
    sections = VIEW.results(seeing_results())
    (samples,) = [section for section in sections if isinstance(section, Samples)]
    console = Console(width=200, markup=False)
    with console.capture() as printed:
        print_samples(console, samples)
    assert f"  shown: images/b.png, {HOSTILE}\n" in printed.get()
    assert printed.get().count("shown:") == 2
