import warnings
from typing import Any

import numpy as np
import pytest
from made_up_run import CHINESE, compare_rows, eval_results, write_lines
from matplotlib.image import imread

from lorafy.metrics import ACCURACY
from lorafy.report import fonts
from lorafy.report.classes import ClassView
from lorafy.report.compare_plot import by_quality, compare_title, draw_compare
from lorafy.report.confusion import cell_colours, draw_confusion, luminance, row_shares
from lorafy.report.curves import score_title
from lorafy.report.plots import draw_plots
from lorafy.report.series import Series, metric, samples, smoothed, to_series
from lorafy.run_directory import RunDirectory, write_json
from lorafy.workflows.draw import view_of

RUN_PLOTS = {"loss", "accuracy", "learning_rate", "hardware", "confusion_matrix"}


def assert_drawn(path):
    """A picture of some size with ink of more than a few colours on it."""
    pixels = imread(path)
    assert min(pixels.shape[:2]) > 400
    packed = (255 * pixels[::3, ::3, :3]).astype(int) @ [1, 256, 65536]
    assert len(np.unique(packed)) > 20


def test_a_finished_run_gets_every_plot(make_run):
    run = make_run(with_gpu=True)
    write_json(run.compare_results, {"rows": compare_rows()})
    drawn = draw_plots(run, view_of(run))
    assert {path.stem for path in drawn.paths} == RUN_PLOTS | {"compare"}
    assert sorted(run.plots.iterdir()) == sorted(drawn.paths)
    assert drawn.notes == []
    for path in drawn.paths:
        assert_drawn(path)


@pytest.mark.parametrize(
    ("missing", "left_out"),
    [
        ("metrics", {"loss", "accuracy", "learning_rate"}),
        ("hardware", {"hardware"}),
        ("eval_results", {"confusion_matrix"}),
        ("summary", set()),
    ],
)
def test_a_plot_without_data_is_left_out(make_run, missing, left_out):
    run = make_run()
    getattr(run, missing).unlink()
    assert {path.stem for path in draw_plots(run, view_of(run)).paths} == RUN_PLOTS - left_out


def test_an_empty_folder_gives_no_plot(tmp_path):
    drawn = draw_plots(RunDirectory(tmp_path), ClassView())
    assert drawn.paths == [] and drawn.notes == []
    assert list(tmp_path.iterdir()) == []


def test_one_logged_step_without_accuracy_is_drawn(tmp_path):
    run = RunDirectory(tmp_path)
    write_lines(run.metrics, [{"split": "train", "step": 1, "loss": 2.5, "accuracy": None, "learning_rate": 0.0}])
    write_lines(run.hardware, [{"seconds": 0.5, "cpu_percent": 0.0, "memory_bytes": 2**30}])
    paths = draw_plots(run, ClassView()).paths
    assert {path.stem for path in paths} == {"loss", "learning_rate", "hardware"}
    for path in paths:
        assert_drawn(path)


def test_chinese_labels_are_drawn_without_a_missing_glyph(make_run):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = draw_plots(make_run(CHINESE), ClassView())
    assert len(drawn.paths) == 5
    assert len(drawn.notes) == (fonts.find_family(set("".join(CHINESE))) is None)


def test_without_a_font_the_plot_is_drawn_and_the_note_comes_along(make_run, monkeypatch):
    monkeypatch.setattr(fonts, "find_family", lambda characters: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = draw_plots(make_run(CHINESE), ClassView())
    assert drawn.notes == [fonts.NO_CHINESE_FONT]
    assert "confusion_matrix" in {path.stem for path in drawn.paths}


@pytest.mark.parametrize("num_labels", [2, 20, 45])
def test_a_matrix_of_any_size_is_drawn(tmp_path, num_labels):
    labels = [f"${index} a rather long name of a class$" for index in range(num_labels)]
    path, note = draw_confusion(eval_results(labels, np.random.default_rng(0), True), tmp_path / "matrix.png")
    assert note is None
    assert_drawn(path)


def test_a_class_without_examples_has_empty_shares():
    assert row_shares(np.array([[3.0, 1.0], [0.0, 0.0]])).tolist() == [[0.75, 0.25], [0.0, 0.0]]


def test_a_fuller_cell_is_darker():
    shares = np.linspace(0, 1, 11)
    right = [luminance(cell_colours(np.array([[share, 1 - share], [0, 1]]))[0, 0]) for share in shares]
    wrong = [luminance(cell_colours(np.array([[1 - share, share], [0, 1]]))[0, 1]) for share in shares]
    assert (np.diff(right) < 0).all() and (np.diff(wrong) < 0).all()


def test_the_best_method_comes_first_and_one_without_a_figure_last():
    rows = [*compare_rows(), {"method": "broken", "accuracy": None}]
    names = [row["method"] for row in by_quality(rows, ACCURACY)]
    assert names == ["lora", "full", "linear probe", "base (untrained)", "broken"]


def test_the_title_says_whose_intervals_overlap():
    rows = by_quality(compare_rows(), ACCURACY)
    title = compare_title(rows, [row["title"] for row in rows], ACCURACY)
    assert title == "Highest accuracy: lora, 97.2 %; its interval overlaps with that of full and linear probe"
    del rows[0]["accuracy_interval"]
    assert compare_title(rows, ["lora", "b", "c", "d"], ACCURACY) == "Highest accuracy: lora, 97.2 %"


def test_methods_with_only_an_accuracy_are_drawn(tmp_path):
    rows: list[dict[str, Any]] = [{"method": "lora", "accuracy": 0.9}, {"method": "full", "accuracy": None}]
    path, _ = draw_compare(rows, tmp_path / "compare.png", ClassView())
    assert path is not None and path.is_file()
    assert draw_compare(rows[1:], tmp_path / "none.png", ClassView()) == (None, None)


def test_a_step_that_was_trained_again_counts_once():
    lines = [{"split": "train", "step": step, "loss": loss} for step, loss in ((1, 3.0), (2, 2.0), (3, 9.0), (2, 1.0))]
    series = metric([*lines, {"split": "train", "step": 4, "loss": float("nan")}], "train", "loss")
    assert series.x.tolist() == [1, 2, 3] and series.y.tolist() == [3.0, 1.0, 9.0]


def test_a_clock_that_starts_again_goes_on():
    lines = [{"seconds": seconds, "cpu_percent": 1.0} for seconds in (1, 2, 1, 3)]
    assert samples(lines, "cpu_percent").x.tolist() == [1, 2, 3, 5]


@pytest.mark.parametrize("length", [1, 2, 12, 13, 400])
def test_smoothing_leaves_a_constant_and_keeps_the_length(length):
    series = smoothed(to_series([(step, 0.7) for step in range(length)]))
    assert len(series) == length
    assert np.allclose(series.y, 0.7)


def test_among_equal_accuracies_the_kept_step_is_named() -> None:
    steps, equal = np.array([16.0, 48.0, 64.0]), np.array([0.7, 0.9, 0.9])
    series = Series(steps, equal)
    assert "step 64" in score_title(series, series, 64, ACCURACY)
    assert "step 48" in score_title(series, series, None, ACCURACY)
