"""A number a text: recognised by its decimals, learned in units of its spread, given in the data's own unit by every
file."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import yaml
from rich.console import Console
from scipy import stats
from sklearn import metrics as sklearn
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

import lorafy
from labelled_files import in_order, notes, read
from language_models import write_rows
from lorafy import api, cli
from lorafy.config import parse_config
from lorafy.config.schema import RunConfig
from lorafy.models.precision import Precision
from lorafy.run_directory import RunDirectory, read_json, read_jsonl, write_json
from lorafy.tasks.regression import Regression, SquaredError, output_layer
from lorafy.tasks.regression.scoring import figures, quick_figures
from lorafy.types import DataError, UserError
from lorafy.workflows.draw import draw_report
from lorafy.workflows.prepare import prepare
from tiny_models import build, logits_of, make_config
from tolerances import FLOAT32_ROUNDING, FLOAT64_ROUNDING
from trained_runs import assert_same_run, train, whole_and_resumed

PLAIN = Precision(torch.float32, torch.device("cpu"))


def json_rows(folder: Path, labels: Sequence[Any]) -> Path:
    lines = [json.dumps({"text": f"text {number}", "label": label}) for number, label in enumerate(labels)]
    path = folder / "rows.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def csv_rows(folder: Path, cells: Sequence[str]) -> Path:
    path = folder / "rows.csv"
    lines = [f"text {number},{cell}\n" for number, cell in enumerate(cells)]
    path.write_text("text,label\n" + "".join(lines), encoding="utf-8")
    return path


# What is a number

DECIMALS = ["0.5", "-100.0", "+2.25", "1.5e3", ".5", "3.0"]


def test_decimals_are_numbers_and_that_is_said(tmp_path: Path) -> None:
    for rows in (csv_rows(tmp_path, DECIMALS), json_rows(tmp_path, [float(text) for text in DECIMALS])):
        corpus = read(rows)
        assert (corpus.task, corpus.label_names) == ("regression", [])
        assert in_order(corpus) == [0.5, -100.0, 2.25, 1500.0, 0.5, 3.0], "-100.0 is a value like any other"
        assert notes(corpus) == ["task: regression, because every label of train is a decimal number, such as 0.5"]


CLASSES: dict[str, list[Any]] = {
    "whole numbers": [1, 2, 3, 1],
    "whole numbers as texts": ["1", "2", "3", "1"],
    "whole numbers as floats": [1.0, 2.0, 3.0, 1.0],
    "whole numbers as texts of floats": ["1.0", "2.0", "3.0", "1.0"],
    "whole and broken ones": [1, 2.5, 3, 2.5],
    "words too": ["1.5", "2.5", "high", "1.5"],
    "versions": ["1.2.3", "1.2.4", "1.2.3", "1.2.4"],
}


@pytest.mark.parametrize("labels", CLASSES.values(), ids=list(CLASSES))
def test_all_else_are_classes(tmp_path: Path, labels: list[Any]) -> None:
    corpus = read(json_rows(tmp_path, labels))
    assert corpus.task == "classification" and notes(corpus) == []


def test_names_for_classes_keep_decimals_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.labels: labels 0.5, 1.5 of train"):
        read(json_rows(tmp_path, [0.5, 1.5]), labels=["low", "high"])


def test_a_mixture_of_whole_and_broken_numbers_is_warned_of(tmp_path: Path, tiny_bert: Path) -> None:
    prepared = prepare(make_config(tiny_bert, csv_rows(tmp_path, ["1", "2.5", "3"] * 20)))
    (warning,) = [finding for finding in prepared.findings if "without an order" in finding.message]
    assert (warning.level, warning.fix) == ("warning", "if their size means something: task=regression")


@pytest.mark.parametrize("labels", [[1, 2, 3], ["1", "2", "3"], [1, 2.5, "3e0", " 1 "]], ids=str)
def test_the_task_can_be_asked_for(tmp_path: Path, labels: list[Any]) -> None:
    corpus = read(json_rows(tmp_path, labels), "regression")
    assert in_order(corpus) == [float(label) for label in labels] and notes(corpus) == []


@pytest.mark.parametrize("label", ["high", "1,5", "inf", "1.5.2", True, [2.5]], ids=str)
def test_what_is_no_number_is_refused_with_its_row(tmp_path: Path, label: Any) -> None:
    with pytest.raises(DataError) as refused:
        read(json_rows(tmp_path, [1.5, label, 2.5, label]), "regression")
    (problem,) = refused.value.problems
    assert problem.where == "data.columns.label"
    assert problem.message.startswith(f"a label is {label!r} (row 2), where a number is meant")
    assert problem.message.endswith("2 of 4 rows are like that")


@pytest.mark.parametrize("missing", [None, math.nan, "", "NaN"], ids=repr)
@pytest.mark.parametrize("task", ["auto", "regression"])
def test_a_missing_number_is_named(tmp_path: Path, task: str, missing: Any) -> None:
    if missing == "NaN":  # a word, unless numbers are asked for
        task = "regression"
    with pytest.raises(DataError, match=r"1 of 3 rows without a label in .*: row 2"):
        read(json_rows(tmp_path, [1.5, missing, 2.5]), task)


def test_a_split_without_numbers_is_left_out(tmp_path: Path) -> None:
    """GLUE's test split has -1 everywhere."""
    (tmp_path / "test").mkdir()
    file, test = json_rows(tmp_path, [-1.0, 2.5, 3.5] * 4), json_rows(tmp_path / "test", [-1.0, -1.0])
    corpus = read(file, validation=str(file), test=str(test))
    assert "test" not in corpus.splits
    assert [example.label for example in corpus.splits["train"]][:2] == [-1.0, 2.5], "one of them is a value"
    assert "the test split has no labels (2 rows): not scored" in [note.message for note in corpus.notes]


def test_a_pair_of_texts_has_a_number(tmp_path: Path) -> None:
    rows = [{"sentence1": f"a {n}", "sentence2": f"b {n}", "label": n / 4, "idx": n} for n in range(6)]
    corpus = read(write_rows(tmp_path / "rows.json", rows))
    assert corpus.task == "regression" and corpus.splits["train"][0].text_pair is not None


def test_settings_of_classes_have_no_effect(tmp_path: Path) -> None:
    for data in ({"labels": ["a", "b"]}, {"balance": "downsample"}, {"label_separator": "|"}):
        with pytest.raises(DataError, match=f"data.{next(iter(data))}: no effect on regression"):
            read(json_rows(tmp_path, [1.5, 2.5]), "regression", **data)


@pytest.mark.parametrize(("case", "example"), [("regression_stsb", "0.2"), ("float_ratings_order", "0.5")])
def test_the_cases_of_decimal_labels(shared_cases: Path, case: str, example: str) -> None:
    corpus = read(shared_cases / case / "data.csv")
    assert corpus.task == "regression"
    assert notes(corpus) == [f"task: regression, because every label of train is a decimal number, such as {example}"]


def test_values_that_teach_nothing_are_refused(tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(UserError, match=r"every training row has the value 2\.5: there is nothing to learn"):
        prepare(make_config(tiny_bert, json_rows(tmp_path, [2.5] * 20)))


def test_values_beyond_what_train_shows_are_warned_of(tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "test").mkdir()
    file, test = json_rows(tmp_path, [n / 8 for n in range(40)]), json_rows(tmp_path / "test", [1.5, 9.5, -3.5])
    messages = [f.message for f in prepare(make_config(tiny_bert, file, data={"test": str(test)})).findings]
    assert "2 test rows have values outside of that" in messages


# Loss and figures


def value_of(kind: str, text: str) -> float:
    """Learnable, far from zero, of a spread that is not one."""
    return 100 + 20 * (kind == "spam") + len(text.split()) / 2


@pytest.fixture(scope="module")
def values_json(tmp_path_factory: pytest.TempPathFactory, sms_rows: list[tuple[str, str]]) -> Path:
    rows = [{"text": text, "label": value_of(kind, text)} for kind, text in sms_rows]
    return write_rows(tmp_path_factory.mktemp("values") / "values.json", rows)


def recipe(base: Path, file: Path, **sections: Any) -> RunConfig:
    settings = {"max_steps": 12, "batch_size": 8, "learning_rate": 1e-2, "evaluate_every": 6, "log_every": 3}
    return make_config(base, file, train=settings | sections.pop("train", {}), **sections)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_the_loss_is_transformers_own_in_units_of_the_spread(
    base_models: dict[str, Path], values_json: Path, name: str
) -> None:
    built, prepared = build(recipe(base_models[name], values_json))
    task: Any = prepared.task
    values = torch.tensor([example.label for example in prepared.corpus.splits["train"]], dtype=torch.float64)
    assert (task.mean, task.scale) == (values.mean().item(), values.std(correction=0).item())
    batch = task.collate(prepared.features["train"][:7])
    torch.testing.assert_close(batch.labels, (values[:7] / task.scale).float())
    output = task.objective.loss(built.model.eval(), batch)
    theirs = built.model(**batch.inputs, labels=batch.labels)
    assert built.base.model.config.problem_type == "regression"
    torch.testing.assert_close(output.loss_sum, 7 * theirs.loss)
    errors = (theirs.logits[:, 0].double() * task.scale - values[:7]).abs()
    assert output.score_sum.item() == pytest.approx(errors.sum().item(), rel=FLOAT32_ROUNDING), "in the data's unit"


def test_what_nobody_said_takes_no_part_in_the_loss() -> None:
    loss, outputs = SquaredError(), torch.tensor([[1.0], [7.0], [-100.0]])
    nothing = loss.ignored(torch.tensor([3.0]))
    found = loss.of_outputs(outputs, torch.cat([torch.tensor([3.0]), nothing, torch.tensor([-100.0])]))
    assert found.loss_sum.item() == 4.0 and found.score_sum.item() == 2.0, "-100.0 is a target, and was hit"


def test_a_new_head_with_a_bias_begins_at_the_mean(tiny_bert: Path, values_json: Path) -> None:
    built, prepared = build(recipe(tiny_bert, values_json))
    task: Any = prepared.task
    outputs = task.encoder.outputs(built.model.eval(), prepared.features["validation"], PLAIN)[:, 0]
    assert (outputs * task.scale - task.mean).abs().max() < 0.5 * task.scale


def test_values_far_from_zero_under_a_head_without_a_bias_are_warned_of(
    base_models: dict[str, Path], values_json: Path
) -> None:
    for base, expected in (("bert", 0), ("gpt2", 1)):
        findings = build(recipe(base_models[base], values_json))[0].findings
        assert sum("has no bias, and the values lie far from 0" in finding.message for finding in findings) == expected


def test_figures_are_scikit_learns_and_scipys() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = (10 * torch.rand(150, generator=generator, dtype=torch.float64)).round() / 2  # with ties
    predicted = (truth + torch.randn(150, generator=generator, dtype=torch.float64)).float()
    found, a, b = figures(predicted, truth), predicted.double().numpy(), truth.numpy()
    expected = {
        "mse": sklearn.mean_squared_error(b, a),
        "mae": sklearn.mean_absolute_error(b, a),
        "pearson": stats.pearsonr(a, b).statistic,
        "spearman": stats.spearmanr(a, b).statistic,
    }
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=FLOAT64_ROUNDING), key
        low, high = found[f"{key}_interval"]
        assert low < found[key] < high
    assert found["mean_mae"] == pytest.approx(sklearn.mean_absolute_error(b, numpy.full(150, b.mean())))
    assert quick_figures(predicted, truth) == {key: found[key] for key in expected}


@pytest.mark.parametrize("constant", ["predictions", "values", "one text"])
def test_a_correlation_that_cannot_be_told_is_none(constant: str) -> None:
    varied, same = torch.tensor([1.0, 2.0, 4.0]), torch.full((3,), 2.5)
    pairs = {"predictions": (same, varied), "values": (varied, same), "one text": (varied[:1], same[:1])}
    found = figures(*pairs[constant])
    assert all(found[key] is None for key in ("pearson", "spearman", "pearson_interval", "spearman_interval"))
    assert found["mae_interval"][0] <= found["mae"] <= found["mae_interval"][1]
    json.dumps(found, allow_nan=False)
    assert set(quick_figures(*pairs[constant])) == {"mse", "mae"}, "nothing to draw"


# A whole run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, values_json: Path) -> RunDirectory:
    """Trained, evaluated in a fresh process, drawn. Read it only."""
    folder = tmp_path_factory.mktemp("run")
    config = recipe(tiny_bert, values_json, run={"output_dir": str(folder), "name": "values"}, train={"max_steps": 60})
    return lorafy.train(config, console=Console(quiet=True)).directory


def test_a_run_is_verified_and_its_figures_are_those_of_its_predictions(run: RunDirectory) -> None:
    results = read_json(run.eval_results)
    assert results["task"] == "regression" and results["verification"]["passed"]
    assert lorafy.verify(run.path)["passed"]
    assert lorafy.evaluate(run.path)["metrics"] == results["metrics"]
    tree = yaml.safe_load(run.config.read_text(encoding="utf-8"))
    examples = prepare(parse_config(tree, "the run")).corpus.splits["test"]
    said = [p.value for p in lorafy.load(run.path).predict([example.text for example in examples])]
    truth = [example.label for example in examples]
    metrics = results["metrics"]
    assert metrics["mae"] == pytest.approx(sklearn.mean_absolute_error(truth, said), rel=FLOAT32_ROUNDING)
    assert metrics["spearman"] == pytest.approx(stats.spearmanr(truth, said).statistic)
    assert metrics["mae"] < 0.5 * metrics["mean_mae"], "it learns"
    assert [pair[0] for pair in results["points"]] == truth
    worst = results["mistakes"][0]
    assert abs(worst["value"] - worst["predicted"]) == pytest.approx(numpy.abs(numpy.subtract(truth, said)).max())
    summary = read_json(run.summary)
    assert (summary["best_metric"], summary["fast_steps"]) == ("loss", summary["num_steps"])


def test_steps_are_logged_in_the_datas_unit(run: RunDirectory) -> None:
    records = [record for record in read_jsonl(run.metrics) if record["split"] == "validation"]
    assert all({"loss", "mae", "mse", "pearson", "spearman"} <= set(record) for record in records)
    scales = [record["mse"] / record["loss"] for record in records]
    assert scales == pytest.approx([scales[0]] * len(scales), rel=FLOAT32_ROUNDING), "the loss is in the variance"


@pytest.mark.parametrize(
    ("base", "method"),
    [(base, method) for base in ("bert", "distilbert", "roberta", "gpt2") for method in ("lora", "full", "none")],
)
def test_plain_transformers_gives_the_same_values_in_the_datas_unit(
    base_models: dict[str, Path], values_json: Path, tmp_path: Path, base: str, method: str
) -> None:
    trained = train(recipe(base_models[base], values_json, adapter={"method": method}), tmp_path / "run")
    assert lorafy.evaluate(trained.path)["verification"]["passed"]
    assert lorafy.merge(trained.path, tmp_path / "merged")["verification"]["passed"]
    texts = ["call now", "are you home ? see you at lunch", "free"]
    ours = [prediction.value for prediction in lorafy.load(trained.path).predict(texts)]
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    with torch.inference_mode():
        theirs = [plain(**tokenizer(text, return_tensors="pt")).logits.item() for text in texts]
    assert ours == pytest.approx(theirs, rel=FLOAT32_ROUNDING)
    last = next(record for record in reversed(read_jsonl(trained.metrics)) if record["split"] == "validation")
    if base != "gpt2":  # whose head has no bias: it has yet to climb to 100
        assert min(theirs) > 50 and last["mae"] < 50, "the data's own unit: the mean is 114"
    with torch.no_grad():
        loss = plain(**tokenizer(texts[0], return_tensors="pt"), labels=torch.tensor([ours[0] + 2])).loss
    assert loss.item() == pytest.approx(functional.mse_loss(torch.tensor(0.0), torch.tensor(2.0)).item(), rel=1e-3)


def test_a_rank_of_one_is_not_taken_for_the_head(tiny_bert: Path, values_json: Path, tmp_path: Path) -> None:
    built, prepared = build(recipe(tiny_bert, values_json, adapter={"r": 1}))
    layer, task = output_layer(built.model), prepared.task
    assert layer.weight.requires_grad and layer.weight.shape == (1, 32)
    features = prepared.features["validation"]
    before = task.encoder.outputs(built.model.eval(), features, PLAIN)  # type: ignore[attr-defined]
    finished: Any = task.finish(built.model, features, PLAIN)
    after = finished.encoder.outputs(built.model, features, PLAIN)
    torch.testing.assert_close(after, before * task.scale)  # type: ignore[attr-defined]
    assert (finished.mean, finished.scale) == (0.0, 1.0)


def test_a_trained_head_is_trained_on_from_where_it_was(tiny_bert: Path, values_json: Path, tmp_path: Path) -> None:
    first = train(recipe(tiny_bert, values_json), tmp_path / "first")
    lorafy.merge(first.path, tmp_path / "merged")
    built, prepared = build(recipe(tmp_path / "merged", values_json))
    task: Any = prepared.task
    assert isinstance(task, Regression) and not built.base.new_names
    inputs = task.collate(prepared.features["validation"]).inputs
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    expected = logits_of(merged, inputs)
    torch.testing.assert_close(logits_of(built.model, inputs) * task.scale, expected, rtol=FLOAT32_ROUNDING, atol=0)
    again = train(recipe(tmp_path / "merged", values_json, train={"max_steps": 2}), tmp_path / "again")
    assert lorafy.evaluate(again.path)["verification"]["passed"]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_resumed_run_is_the_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bert: Path, values_json: Path, method: str
) -> None:
    adapter: dict[str, Any] = {"method": method} | ({"dropout": 0.2} if method == "lora" else {})
    config = recipe(tiny_bert, values_json, adapter=adapter, train={"max_steps": 10, "save_every": 5})
    assert_same_run(*whole_and_resumed(config, tmp_path, monkeypatch, 8))


def test_prepared_data_are_read_again_as_they_were(tmp_path: Path, values_json: Path, tiny_bert: Path) -> None:
    prepared = api.prepare(recipe(tiny_bert, values_json), output=tmp_path / "prepared")
    again = read(tmp_path / "prepared")
    assert again.task == "regression"
    for name, split in prepared.corpus.splits.items():
        assert [example.label for example in split] == [example.label for example in again.splits[name]]


def test_the_command_line_predicts_numbers(run: RunDirectory, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, ["predict", str(run.path), "call now", "--json"])
    (prediction,) = json.loads(done.stdout)["predictions"]
    assert set(prediction) == {"text", "value", "truncated"} and prediction["value"] > 50
    done = CliRunner().invoke(cli.app, ["predict", str(run.path), "call now", "--output", str(tmp_path / "out.csv")])
    assert done.exit_code == 0, done.output
    head, row = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert head == "text,value" and float(row.split(",")[1]) == pytest.approx(prediction["value"], rel=FLOAT32_ROUNDING)


def test_the_report_shows_errors_and_the_scatter_plot(run: RunDirectory) -> None:
    page = run.report.read_text(encoding="utf-8")
    shown = ["mean absolute error", "Pearson", "Spearman", "always predicting the mean would be", "the farthest first"]
    assert [words for words in shown if words not in page] == []
    assert {path.stem for path in run.plots.glob("*.png")} >= {"loss", "mae", "scatter", "learning_rate"}


def test_constant_predictions_are_shown_without_correlations(run: RunDirectory, tmp_path: Path) -> None:
    copied = RunDirectory(shutil.copytree(run.path, tmp_path / "run"))
    results = read_json(copied.eval_results)
    truth = torch.tensor([value for value, _ in results["points"]], dtype=torch.float64)
    results["metrics"] = figures(torch.full_like(truth, 114.0), truth)
    results["points"] = [[value, 114.0] for value in truth.tolist()]
    write_json(copied.eval_results, results)
    draw_report(copied, Console(quiet=True))
    page = re.sub('base64,[^"]*', "", copied.report.read_text(encoding="utf-8"))
    assert "nan" not in page.lower() and "no better than guessing" in page
