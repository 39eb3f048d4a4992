import base64
from html.parser import HTMLParser

import pytest
from made_up_run import CHINESE, compare_rows, summary

from lorafy.report import fonts, html
from lorafy.report.html import write_report
from lorafy.report.plots import Drawn
from lorafy.report.view import Picture
from lorafy.run_directory import RunDirectory, write_json, write_text
from lorafy.workflows.draw import view_of

VOID = {"meta", "img", "br"}
EVERY_FILE = ["config", "environment", "preflight", "metrics", "hardware", "summary", "eval_results"]


class Page(HTMLParser):
    """What a browser would find: the text, the tags, what they load; asserts that tags close in order."""

    def __init__(self, source: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data


NO_PLOTS = Drawn()


def read(run: RunDirectory, drawn: Drawn | None = NO_PLOTS) -> Page:
    path = write_report(run, view_of(run), drawn)
    assert path == run.report
    return Page(path.read_text(encoding="utf-8"))


def test_a_finished_run_says_how_good_it_is_and_loads_nothing(make_run):
    run = make_run()
    page = read(run, drawn=None)
    assert "Accuracy 92.5 % (95 % interval 89.5 to 94.5 %) on 106 test examples; both checks passed" in page.text
    for text in ("600 k", "2.61 % of 23.0 M", "21.4 s", "858 MiB", "2.3 MiB", "sms.csv, row 19"):
        assert text in page.text
    for command in (
        f'lorafy predict {run.path} "text"',
        f"lorafy merge {run.path} --output DIR",
        "config.yaml",
    ):
        assert command in page.text
    assert page.tags.count("img") == 5
    assert all(load.startswith("data:image/png;base64,") for load in page.loads)
    source = run.report.read_text(encoding="utf-8")
    assert "url(" not in source and "@import" not in source
    assert source.startswith("<!doctype html>")
    assert '<meta charset="utf-8">' in source


def test_the_parts_come_in_reading_order(make_run):
    run = make_run()
    write_json(run.compare_results, {"rows": compare_rows()})
    text = read(run, drawn=None).text
    titles = [
        "Methods compared",
        "Per class",
        "Verification",
        "Plots",
        "Worst mistakes",
        "Before training",
        "Use it",
    ]
    places = [text.index(title) for title in titles]
    assert places == sorted(places)
    assert text.index("linear probe") < text.index("base (untrained)")


def test_users_texts_are_shown_never_run(make_run):
    run = make_run(["<b>ham</b>", "spam & eggs"])
    page = read(run)
    assert "script" not in page.tags
    assert page.tags.count("b") == 6  # the numbers of two labels in three splits
    assert "<script>alert('x')</script>" in page.text
    assert "<b>ham</b>" in page.text
    assert "<script>" not in run.report.read_text(encoding="utf-8")


def test_the_surest_mistake_comes_first_and_a_long_one_is_cut(make_run):
    text = read(make_run()).text
    assert text.index("FREE entry") < text.index("央行宣布") < text.index("Sorry, I'll")
    assert text.count("FREE entry") < 9


def test_a_failed_check_is_the_first_thing_to_see(make_run):
    run = make_run(passed=False)
    page = read(run)
    assert "1 of 2 checks failed: merged equals adapter" in page.text
    assert "✗ failed" in page.text and "✓ passed" in page.text
    assert '<div class="verdict bad"' in run.report.read_text(encoding="utf-8")


@pytest.mark.parametrize("missing", EVERY_FILE)
def test_a_missing_file_leaves_out_its_part_only(make_run, missing):
    run = make_run()
    getattr(run, missing).unlink()
    assert "sms-spam-1" in read(run).text


def test_before_evaluation_the_page_says_what_to_do(make_run):
    run = make_run()
    run.eval_results.unlink()
    text = read(run).text
    assert "Training finished after 90 steps and 21.4 s; best validation accuracy 97.0 % at step 60." in text
    assert f"lorafy evaluate {run.path}" in text
    assert "Verification" not in text


def test_before_the_end_of_training_the_page_says_how_far_it_is(make_run):
    run = make_run()
    run.eval_results.unlink()
    run.summary.unlink()
    text = read(run).text
    assert "Training has not finished: the last logged step is 90." in text
    assert "--resume" in text


def test_an_empty_folder_has_a_page(tmp_path):
    assert "Training has not started." in read(RunDirectory(tmp_path), drawn=None).text


def test_no_better_than_the_most_frequent_label_is_said(make_run):
    run = make_run()
    results = html.read_json(run.eval_results)
    results["metrics"]["majority_accuracy"] = 0.95
    write_json(run.eval_results, results)
    assert "That is no better than guessing" in read(run).text


def test_a_result_without_classes_is_shown(make_run):
    run = make_run()
    results = {"task": "causal_lm", "split": "validation", "num_examples": 50, "metrics": {"loss": 1.234}}
    write_json(run.eval_results, results)
    write_json(run.summary, summary() | {"task": "causal_lm"})
    text = read(run).text
    assert "Loss 1.234 on 50 validation examples; no check was made" in text
    assert "Per class" not in text


def test_without_a_chinese_font_the_page_has_the_note_and_the_names(make_run, monkeypatch):
    monkeypatch.setattr(fonts, "find_family", lambda characters: None)
    text = read(make_run(CHINESE), drawn=None).text
    assert "no Chinese font was found" in text
    assert "财经" in text


def test_plots_that_were_drawn_are_not_drawn_again(make_run, monkeypatch):
    monkeypatch.setattr(html, "draw_plots", lambda run, view: pytest.fail("drawn again"))
    run = make_run()
    picture = run.path / "confusion_matrix.png"
    picture.write_bytes(b"a picture")
    page = read(run, Drawn([Picture(picture, "a caption", "a note")]))
    assert "a note" in page.text and "a caption" in page.text
    assert page.loads == ["data:image/png;base64," + base64.b64encode(b"a picture").decode("ascii")]


def test_a_failure_leaves_the_page_that_was_there(make_run, monkeypatch):
    run = make_run()
    write_text(run.report, "the page of yesterday")

    def full_disk(run, view):
        raise OSError("No space left on device")

    monkeypatch.setattr(html, "draw_plots", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_report(run, view_of(run))
    assert run.report.read_text(encoding="utf-8") == "the page of yesterday"


def test_a_path_with_spaces_is_quoted(make_run):
    run = make_run()
    moved = run.path.rename(run.path.with_name("my run"))
    assert f'lorafy predict "{moved}" "text"' in read(RunDirectory(moved)).text
