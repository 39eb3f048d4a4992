"""What the report says of a language model."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_run import (
    LANGUAGE_SAMPLES,
    language_compare_rows,
    language_results,
    made_up_language_run,
    summary,
    write_lines,
)
from test_html import read

from lorafy.metrics import LOGGED_TOKEN_ACCURACY, PERPLEXITY, TOKEN_ACCURACY, Metric
from lorafy.plugins import load_method
from lorafy.report import language, plots
from lorafy.report.classes import ClassView
from lorafy.report.compare_plot import by_quality, compare_title, draw_compare, draw_quality
from lorafy.report.curves import score_title
from lorafy.report.language import LanguageView
from lorafy.report.sections import Table
from lorafy.report.series import to_series
from lorafy.report.style import new_figure
from lorafy.report.verdict import verdict
from lorafy.report.view import View
from lorafy.run_directory import RunDirectory, write_json
from lorafy.tasks import load_kind
from lorafy.workflows.candidates import named_candidates
from lorafy.workflows.compare import _base_row
from lorafy.workflows.draw import view_of

SCORE = "Perplexity 6.75 (95 % interval 6.36 to 7.17) on 200 test examples"
VIEW = LanguageView()


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return made_up_language_run(tmp_path / "stories-1")


def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    results = language_results()
    change(results)
    return results


def judged(results: dict[str, Any]) -> tuple[str, str, str]:
    found = verdict(VIEW, {}, results, [], [])
    return found.kind, found.text, found.detail


def test_a_better_model_is_said_beside_the_base_model() -> None:
    text = f"{SCORE}, the base model's is 24.0; both checks passed"
    assert judged(language_results()) == ("good", text, "Lower is better.")


def test_no_better_than_the_base_model_is_said() -> None:
    kind, text, detail = judged(changed(lambda results: results["base"].update(perplexity=6.75 - 0.01)))
    assert kind == "open"
    assert text == f"{SCORE}, the base model's is 6.74; both checks passed"
    assert detail == "That is no better than the untrained base model."


def test_a_difference_within_the_intervals_is_said() -> None:
    near = {"perplexity": 7.1, "perplexity_interval": [6.7, 7.5]}
    kind, _, detail = judged(changed(lambda results: results["base"].update(near)))
    assert kind == "good"
    assert detail == "Lower is better. The two intervals overlap: the difference may be chance."


def test_without_a_base_model_the_gain_is_not_claimed() -> None:
    kind, text, detail = judged(changed(lambda results: results.update(base=None)))
    assert (kind, text) == ("good", f"{SCORE}; both checks passed")
    assert detail == "Lower is better. The base model was not measured, so that what training gained is not known."


def test_a_failed_check_of_a_language_model_comes_first() -> None:
    kind, text, _ = judged(language_results(passed=False))
    assert kind == "bad"
    assert text == f"{SCORE}, the base model's is 24.0; but 1 of 2 checks failed: merged equals adapter"


def test_faulty_answers_are_said() -> None:
    faulty = {"looped": 0.3, "ended": 0.4}
    _, _, detail = judged(changed(lambda results: results["metrics"]["generation"].update(faulty)))
    assert "30.0 % of its answers say the same again and again." in detail
    assert "60.0 % of its answers did not end by themselves." in detail


def test_a_comparison_does_not_count_the_base_as_a_method() -> None:
    rows = language_compare_rows()
    text = verdict(VIEW, {}, {}, rows, []).text
    assert text == "2 methods and the untrained base model were compared on the same data and seed."
    assert verdict(VIEW, {}, {}, rows[1:], []).text == "2 methods were compared on the same data and seed."


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"summary": {}, "eval_results": {"task": "causal_lm"}}, LanguageView),
        ({"summary": {"task": "classification"}, "eval_results": {"task": "causal_lm"}}, ClassView),
        ({"preflight": {"task": "causal_lm"}}, LanguageView),  # before there is a summary
        ({"preflight": {"task": "classification"}}, ClassView),
        ({"compare_results": {"rows": [{"task": "causal_lm"}]}}, LanguageView),
        ({"summary": summary()}, ClassView),
        ({"summary": {}}, View),
        ({}, View),
    ],
)
def test_the_task_is_read_from_the_first_file_that_names_it(
    files: dict[str, Any], expected: type[View], tmp_path: Path
) -> None:
    run = RunDirectory(tmp_path)
    for name, content in files.items():
        write_json(getattr(run, name), content)
    assert type(view_of(run)) is expected


def test_the_page_of_a_language_model(run: RunDirectory) -> None:
    page = read(run, drawn=None)
    assert f"{SCORE}, the base model's is 24.0; both checks passed" in page.text
    for title in ("perplexity", "token accuracy", "exact match", "BLEU", "chrF", "ROUGE-L", "trainable parameters"):
        assert title in page.text
    for figure in ("✓ 6.75", "24.0", "22.6 to 25.5", "✓ 61.3 %", "41.2 %", "✓ 21.3", "lower is better", "9,876"):
        assert figure in page.text
    assert "200 test examples, 2 skipped, 5,120 target tokens, 50 prompts answered" in page.text
    assert f"lorafy chat {run.path}" in page.text
    assert f'lorafy generate {run.path} --prompt "text"' in page.text
    assert "lorafy predict" not in page.text and "labels" not in page.text
    assert "trained tokens" in page.text and "skipped" in page.text
    assert page.tags.count("img") == 4
    assert all(load.startswith("data:image/png;base64,") for load in page.loads)
    parts = ["Base and tuned side by side", "Sample answers", "Verification", "Plots", "Before training", "Use it"]
    places = [page.text.index(part) for part in parts]
    assert places == sorted(places)


def test_sample_answers_are_escaped_and_keep_their_lines(run: RunDirectory) -> None:
    page = read(run)
    source = run.report.read_text(encoding="utf-8")
    assert "<script" not in source and "&lt;script&gt;alert(1)&lt;/script&gt;" in source
    assert "What does <b>LoRA</b> & co. train?\nAnswer:" in page.text
    assert "- A, which leads to the rank\n- B, which leads up" in page.text
    assert "white-space: pre-wrap" in source
    for text in LANGUAGE_SAMPLES[1]["references"]:
        assert text in page.text
    assert "2 references" in page.text and "此事我们稍后再议" in page.text
    assert page.text.count("did not end by itself") == 1
    assert "(nothing)" in page.text  # the base model's empty answer
    assert page.text.count("ran and") < 60


def test_a_long_prompt_loses_its_middle() -> None:
    prompt = "start " + "x" * 2000 + " end"
    text = language.without_middle(prompt)
    assert text.startswith("start x") and text.endswith("x end") and "[…]" in text
    assert len(text) < 620
    assert language.without_middle(" 短 ") == "短"


def test_without_answers_the_page_has_the_loss_only(run: RunDirectory) -> None:
    def no_answers(results: dict[str, Any]) -> None:
        results["metrics"]["generation"] = results["base"]["generation"] = None
        results["samples"] = []

    write_json(run.eval_results, changed(no_answers))
    text = read(run).text
    assert "✓ 6.75" in text
    assert "BLEU" not in text and "Sample answers" not in text and "prompts answered" not in text


def test_without_a_base_model_there_is_one_column(run: RunDirectory) -> None:
    def no_base(results: dict[str, Any]) -> None:
        results["base"] = None
        results["samples"] = [{**sample, "base": None} for sample in results["samples"]]

    write_json(run.eval_results, changed(no_base))
    text = read(run).text
    assert "What was measured" in text and "The base model was not measured." in text
    assert "base, untrained" not in text and "base model " not in text.replace("base model was", "")
    assert "✓ 6.75" not in text  # nothing to be better than
    assert "此事我们稍后再议" in text


@pytest.mark.parametrize("missing", ["summary", "eval_results", "metrics", "preflight", "hardware"])
def test_a_missing_file_leaves_out_its_part(run: RunDirectory, missing: str) -> None:
    getattr(run, missing).unlink()
    text = read(run).text
    assert ("Sample answers" in text) == (missing != "eval_results")
    assert ("lorafy chat" in text) == (missing != "summary")


def test_the_better_figure_is_marked_in_its_direction() -> None:
    table = VIEW.results(language_results())[0]
    assert isinstance(table, Table)
    rows = {title.text: [cell.best for cell in figures] for title, *figures, _ in table.rows}
    assert rows["perplexity"] == rows["loss"] == rows["looped"] == [True, False]
    assert rows["BLEU"] == rows["ended"] == [True, False]
    assert rows["length"] == rows["speed"] == [False, False]
    assert TOKEN_ACCURACY.best([0.6131, 0.6129]) == [False, False]  # both read 61.3 %
    assert TOKEN_ACCURACY.best([0.5, None, 0.6]) == [False, False, True]


def test_a_comparison_has_figures_costs_and_answers(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    write_json(run.compare_results, {"rows": language_compare_rows()})
    page = read(run, drawn=None)
    for text in ("✓ 6.75", "✓ 22.9", "base, untrained", "full fine-tuning", "100.00 %", "5.7 GiB", "2e-05", "–"):
        assert text in page.text
    assert page.text.index("LoRA") < page.text.index("full fine-tuning") < page.text.index("base, untrained")
    assert page.text.count(LANGUAGE_SAMPLES[1]["prompt"]) == 1
    assert page.text.count(LANGUAGE_SAMPLES[1]["tuned"]) == 2
    assert page.text.count(LANGUAGE_SAMPLES[1]["base"]) == 1
    assert "macro F1" not in page.text and "<script" not in run.report.read_text(encoding="utf-8")
    assert page.tags.count("img") == 1


def test_a_comparison_without_answers_has_no_such_columns(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    nothing: dict[str, Any] = {"exact_match": None, "bleu": None, "chrf": None, "rouge_l": None, "samples": []}
    write_json(run.compare_results, {"rows": [row | nothing for row in language_compare_rows()]})
    text = read(run).text
    assert "perplexity ↓" in text
    assert "BLEU" not in text and "Sample answers" not in text


def test_methods_are_ranked_by_the_lowest_perplexity() -> None:
    rows = [*language_compare_rows(), {"method": "broken", "task": "causal_lm", "perplexity": None}]
    ranked = by_quality(rows, PERPLEXITY)
    assert [row["method"] for row in ranked] == ["lora", "full", "base", "broken"]
    title = compare_title(ranked[:3], ["LoRA", "full fine-tuning", "base, untrained"], PERPLEXITY)
    assert title == "Lowest perplexity: LoRA, 6.75; its interval overlaps with that of full fine-tuning"
    title = compare_title([ranked[0], ranked[2]], ["LoRA", "base, untrained"], PERPLEXITY)
    assert title == "Lowest perplexity: LoRA, 6.75; no other method's interval reaches its own"


@pytest.mark.parametrize(("perplexity", "scale"), [(24.0, "linear"), (51_234.5, "log")])
def test_perplexities_far_apart_get_a_log_axis(tmp_path: Path, perplexity: float, scale: str) -> None:
    rows = language_compare_rows()
    rows[0] |= {"perplexity": perplexity, "perplexity_interval": [0.9 * perplexity, 1.1 * perplexity]}
    axes = new_figure(5, 2).add_subplot()
    draw_quality(axes, PERPLEXITY, rows)
    assert axes.get_xscale() == scale
    assert ("log scale" in axes.get_title(loc="left")) == (scale == "log")
    path, note = draw_compare(rows, tmp_path / "compare.png", VIEW)
    assert path is not None and path.is_file() and note is None


def test_the_accuracy_is_that_of_tokens(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int | None, str]] = []

    def record(lines: Any, best: int | None, path: Path, score: Metric) -> None:
        assert path.name == "accuracy.png"
        drawn.append((best, score.title))

    monkeypatch.setattr(plots, "draw_score", record)
    plots.draw_plots(run, view_of(run))
    for path in (run.summary, run.eval_results):
        path.unlink()
    plots.draw_plots(run, view_of(run))
    plots.draw_plots(run, ClassView())
    write_lines(run.metrics, [{"split": "train", "step": 1, "loss": 2.5, "accuracy": 0.4}])
    plots.draw_plots(run, view_of(run))
    assert drawn == [(60, "token accuracy"), (60, "token accuracy"), (None, "accuracy"), (None, "token accuracy")]
    series = to_series([(60, 0.61)])
    title = score_title(series, series, 60, LOGGED_TOKEN_ACCURACY)
    assert title == "Validation token accuracy is highest at step 60: 61.0 %"


def test_methods_and_the_base_are_called_as_people_call_them() -> None:
    titles = {name: load_method(name).title for name in ("lora", "full", "none")}
    assert titles == {"lora": "LoRA", "full": "full fine-tuning", "none": "head only"}
    trained = {"summary": summary() | {"learning_rate": 1e-4}, "results": language_results(), "run": "a run"}
    [lora] = named_candidates(load_kind("causal_lm"), ["lora"])
    row = _base_row(lora, 42, trained)
    assert (row["method"], row["title"], row["perplexity"]) == (
        "base",
        "base, untrained",
        pytest.approx(math.exp(3.18)),
    )
    assert row["seconds"] is None and row["trainable_parameters"] == 0
    assert row["samples"][1]["answer"] == LANGUAGE_SAMPLES[1]["base"]


def test_the_terminals_comparison_shows_perplexity_and_answers() -> None:
    assert [metric.key for metric in VIEW.brief] == ["perplexity", "chrf"]
    assert [metric.key for metric in ClassView().brief] == ["accuracy", "f1_macro"]
