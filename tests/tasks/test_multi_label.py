"""Several labels a text: read from every shape, learned by transformers' own loss, scored as scikit-learn scores, said
from a threshold that goes with the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy
import pytest
import torch
from rich.console import Console
from sklearn import metrics as sklearn
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

import lorafy
from labelled_files import in_order, notes, read
from language_models import write_rows
from lorafy import api, cli
from lorafy.config import parse_config
from lorafy.config.schema import RunConfig
from lorafy.models.precision import Precision
from lorafy.models.trained_files import read_manifest
from lorafy.run_directory import RunDirectory, read_json, read_jsonl
from lorafy.tasks.multi_label import BinaryCrossEntropy, MultiLabel
from lorafy.tasks.multi_label.label_bars import titles
from lorafy.tasks.multi_label.scoring import best_threshold, counts, f1_of, figures
from lorafy.types import DataError, Features, UserError
from lorafy.workflows.prepare import prepare
from tiny_models import build, make_config
from tolerances import FLOAT32_ROUNDING, FLOAT64_ROUNDING
from trained_runs import assert_same_run, train, whole_and_resumed

PLAIN = Precision(torch.float32, torch.device("cpu"))
NAMES = ["call", "spam", "you"]


def json_rows(folder: Path, labels: Sequence[Any]) -> Path:
    rows = [{"text": f"text {number}", "label": label} for number, label in enumerate(labels)]
    return write_rows(folder / "rows.json", rows)


def csv_rows(folder: Path, cells: Sequence[str], head: str = "label") -> Path:
    lines = [f"text {number},{cell}\n" for number, cell in enumerate(cells)]
    path = folder / "rows.csv"
    path.write_text(f"text,{head}\n" + "".join(lines), encoding="utf-8")
    return path


# How labels are read

SETS = [("a", "b"), (), ("c",), ("b",), ("a", "c"), ("b", "c")]
"""What the rows below say, each in its way."""

VECTORS = [[int(name in names) for name in "abc"] for names in SETS]
INDICES = [["abc".index(name) for name in names] for names in SETS]
LISTS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "names": ([list(names) for names in SETS], {}),
    "names of an exporter": ([str(list(names)) for names in SETS], {}),
    "vectors": (VECTORS, {"labels": ["a", "b", "c"]}),
    "vectors of floats": ([[float(value) for value in row] for row in VECTORS], {"labels": ["a", "b", "c"]}),
    "vectors of truths": ([[bool(value) for value in row] for row in VECTORS], {"labels": ["a", "b", "c"]}),
    "indices": (INDICES, {"labels": ["a", "b", "c"]}),
}


@pytest.mark.parametrize("shape", LISTS)
@pytest.mark.parametrize("form", ["json", "csv"])
def test_lists_are_sets_of_labels(tmp_path: Path, shape: str, form: str) -> None:
    lists, data = LISTS[shape]
    if form == "csv":
        texts = [one if isinstance(one, str) else json.dumps(one) for one in lists]
        file = csv_rows(tmp_path, ['"' + text.replace('"', '""') + '"' for text in texts])
    else:
        file = json_rows(tmp_path, lists)
    corpus = read(file, **data)
    assert (corpus.task, corpus.label_names, in_order(corpus)) == ("multi_label", ["a", "b", "c"], SETS)
    assert len(notes(corpus)) == 1 and notes(corpus)[0].startswith("task: multi_label, because the labels are lists")


def test_without_names_places_are_numbers_and_none_is_lost(tmp_path: Path) -> None:
    corpus = read(json_rows(tmp_path, [[1, 0, 0], [0, 0, 0], [1, 0, 1], [0, 0, 1]]))
    assert corpus.label_names == ["0", "1", "2"], "also the one that is 0 everywhere"
    assert in_order(corpus) == [("0",), (), ("0", "2"), ("2",)]


def test_class_indices_of_a_data_set_keep_its_names_and_their_order(tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["joy", "anger", "fear"])
    features = datasets.Features({"text": datasets.Value("string"), "labels": datasets.List(names)})
    rows = {"text": [f"text {number}" for number in range(4)], "labels": [[0, 1], [], [1], [0]]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "set")
    corpus = read(tmp_path / "set")
    assert (corpus.task, corpus.label_names) == ("multi_label", ["joy", "anger", "fear"])
    assert in_order(corpus) == [("anger", "joy"), (), ("anger",), ("joy",)]


SEPARATED = [
    ("|", {}),
    (";", {}),
    (",", {}),
    (" / ", {"label_separator": "/"}),
]


@pytest.mark.parametrize(("separator", "data"), SEPARATED, ids=["bar", "semicolon", "comma", "given"])
def test_a_separated_text_is_a_set_of_labels(tmp_path: Path, separator: str, data: dict[str, Any]) -> None:
    file = csv_rows(tmp_path, [f'"{separator.join(names)}"' for names in SETS if names])
    corpus = read(file, "multi_label", **data)
    assert (corpus.label_names, in_order(corpus)) == (["a", "b", "c"], [names for names in SETS if names])


def test_one_separator_takes_all_rows_apart(tmp_path: Path) -> None:
    corpus = read(csv_rows(tmp_path, ['"comedy, dark|drama"', '"comedy, dark"', "drama"]), "multi_label")
    assert corpus.label_names == ["comedy, dark", "drama"]


def test_a_separator_asks_for_the_task(tmp_path: Path) -> None:
    corpus = read(csv_rows(tmp_path, ["a+b", "b", "a", "b"]), label_separator="+")
    assert corpus.task == "multi_label"
    assert notes(corpus) == ["task: multi_label, because data.label_separator is given"]


def test_columns_of_0_and_1_are_labels(tmp_path: Path) -> None:
    """Jigsaw's shape."""
    file = csv_rows(tmp_path, [",".join(map(str, row)) for row in VECTORS], "c_toxic,b_insult,a_threat")
    corpus = read(file, columns={"label": ["c_toxic", "a_threat"]})
    assert corpus.label_names == ["c_toxic", "a_threat"], "in the recipe's order"
    assert in_order(corpus)[0] == ("c_toxic",) and in_order(corpus)[2] == ("a_threat",)
    assert notes(corpus) == ["task: multi_label, because data.columns.label is a list of columns"]


@pytest.mark.parametrize(("yes", "no"), [("True", "False"), ("true", "false"), ("1", "0"), ("1.0", "0.0")])
def test_every_spelling_of_yes_and_no(tmp_path: Path, yes: str, no: str) -> None:
    file = write_rows(tmp_path / "rows.json", [{"text": f"t{i}", "a": float(i % 2), "b": i > 1} for i in range(4)])
    assert in_order(read(file, columns={"label": ["a", "b"]})) == [(), ("a",), ("b",), ("a", "b")]
    file = csv_rows(tmp_path, [f"{yes},{no}", f"{no},{no}", f"{no},{yes}", f"{yes},{yes}"], "a,b")
    if "." not in yes:
        assert in_order(read(file, columns={"label": ["a", "b"]})) == [("a",), (), ("b",), ("a", "b")]


def test_columns_may_be_called_by_numbers(tmp_path: Path) -> None:
    file = csv_rows(tmp_path, ["1,1", "0,1", "1,0", "1,1"], "0,1")
    corpus = read(file, columns={"label": ["0", "1"]})
    assert in_order(corpus) == [("0", "1"), ("1",), ("0",), ("0", "1")]


def test_one_label_a_row_is_a_classification(tmp_path: Path) -> None:
    for rows in (json_rows(tmp_path, [["a"], ["b"], ["a"], ["b"]]), csv_rows(tmp_path, ['"[""a""]"', '"[""b""]"'] * 2)):
        corpus = read(rows)
        assert (corpus.task, in_order(corpus)) == ("classification", ["a", "b", "a", "b"])
        assert notes(corpus) == []
        assert in_order(read(rows, "multi_label")) == [("a",), ("b",), ("a",), ("b",)], "unless it is asked for"


def test_an_empty_list_is_no_label_and_an_empty_cell_a_missing_answer(tmp_path: Path) -> None:
    assert in_order(read(json_rows(tmp_path, [["a", "b"], [], ["a"]]))) == [("a", "b"), (), ("a",)]
    for rows in (json_rows(tmp_path, [["a", "b"], None, ["a"]]), csv_rows(tmp_path, ['"[""a"", ""b""]"', "", "[]"])):
        with pytest.raises(DataError, match=r"1 of 3 rows without a label in .*: row [23]"):
            read(rows)


REFUSED: list[tuple[list[Any], dict[str, Any], str]] = [
    ([["a", "b"], ["a", None]], {}, r"a list of labels holds None \(row 2\), where a name or a number is meant"),
    ([["a", "b"], [["a"], "b"]], {}, r"a list of labels holds \['a'\] \(row 2\)|holds a list"),
    ([["a", ""], ["a"]], {}, r"a list of labels holds '' \(row 1\)"),
    ([[1, 0, 1], [0, 1]], {}, r"not equally long: 3 values, but 2 in row 2"),
    ([[1, 0, 1], []], {}, r"not equally long: 3 values, but 0 in row 2"),
    ([[1, 0, 1], [0, 1, 1]], {"labels": ["x", "y"]}, "2 names for lists of 3 values of 0 and 1"),
    ([["a", "b"], ["c"]], {"labels": ["a", "b"]}, "labels c of train are not among these names"),
    ([[0, 2], [3]], {"labels": ["x", "y", "z"]}, "labels 3 of train are not among these names"),
    ([["a", "b"], ["c"]], {"label_separator": "/"}, "data.label_separator: no effect: the labels are lists"),
    ([["a", "b"], ["c"]], {"balance": "downsample"}, "data.balance: no effect on multi_label"),
]


@pytest.mark.parametrize(("labels", "data", "message"), REFUSED, ids=[message[:30] for *_, message in REFUSED])
def test_lists_that_mean_nothing_are_refused(
    tmp_path: Path, labels: list[Any], data: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(json_rows(tmp_path, labels), **data)


def test_a_text_that_only_looks_like_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\[1 0 1\] \(row 2\) looks like a list, but is none"):
        read(csv_rows(tmp_path, ["[1 0 1]", "[0 1 1]"]), "multi_label")


@pytest.mark.parametrize("cell", ["2", "", "yes", "-1"])
def test_a_column_of_else_than_0_and_1_is_refused_with_its_row(tmp_path: Path, cell: str) -> None:
    what = repr(cell) if cell else "nothing"
    with pytest.raises(DataError, match=rf"'b' holds {what} \(row 3\), where 0 or 1 is meant in .*; 1 of 3 rows"):
        read(csv_rows(tmp_path, ["0,1", f"1,{cell}", "0,0"], "a,b"), columns={"label": ["a", "b"]})


@pytest.mark.parametrize("columns", [["a"], ["a", "b"]], ids=len)
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_list_of_columns_is_no_label_of_another_task(tmp_path: Path, task: str, columns: list[str]) -> None:
    with pytest.raises(DataError, match=rf"data.columns.label: it is a list of columns \({', '.join(columns)}\)"):
        read(csv_rows(tmp_path, ["0,1", "1,0"], "a,b"), task, columns={"label": columns})


def test_what_a_list_of_columns_leaves_without_effect_is_refused(tmp_path: Path) -> None:
    file = csv_rows(tmp_path, ["0,1", "1,0"], "a,b")
    with pytest.raises(DataError, match="'a' stands there more than once"):
        read(file, columns={"label": ["a", "a"]})
    with pytest.raises(DataError, match=r"data.labels: no effect: the columns of data.columns.label are the names"):
        read(file, columns={"label": ["a", "b"]}, labels=["x", "y"])


def test_prepared_data_are_read_again_as_they_were(tmp_path: Path, sets_json: Path, tiny_bert: Path) -> None:
    prepared = api.prepare(recipe(tiny_bert, sets_json), output=tmp_path / "prepared")
    again = read(tmp_path / "prepared")
    assert (again.task, again.label_names) == ("multi_label", NAMES)
    for name, split in prepared.corpus.splits.items():
        assert [example.label for example in split] == [example.label for example in again.splits[name]]


def test_the_case_of_lists_in_a_csv(shared_cases: Path) -> None:
    corpus = read(shared_cases / "multilabel_csv" / "data.csv")
    assert (corpus.task, corpus.label_names) == ("multi_label", ["0", "1", "2"])
    assert notes(corpus) == ["task: multi_label, because the labels are lists, such as [0, 0, 0]"]


# What pre-flight says


TEACHES_NOTHING: list[tuple[list[Any], str]] = [
    ([[], []] * 20, "no training row has a label: there is nothing to learn"),
    ([["a", "b"], ["a"]] * 20, "every training row has the label a: nothing to tell apart"),
]


@pytest.mark.parametrize(("labels", "message"), TEACHES_NOTHING)
def test_labels_that_teach_nothing(tmp_path: Path, tiny_bert: Path, labels: list[Any], message: str) -> None:
    try:
        said = [finding.message for finding in prepare(make_config(tiny_bert, json_rows(tmp_path, labels))).findings]
    except UserError as error:
        said = [problem.message for problem in error.problems]
    assert message in said


# Loss and figures


def recipe(base: Path, file: Path, **sections: Any) -> RunConfig:
    settings = {"max_steps": 12, "batch_size": 8, "learning_rate": 1e-2, "evaluate_every": 6, "log_every": 3}
    return make_config(base, file, train=settings | sections.pop("train", {}), **sections)


@pytest.fixture(scope="module")
def sets_json(tmp_path_factory: pytest.TempPathFactory, sms_rows: list[tuple[str, str]]) -> Path:
    """Which of some words a text has, and whether it is spam: learnable, uneven, sometimes nothing."""
    rows = [
        {"text": text, "label": [name for name in NAMES if name == kind or name in text.split()]}
        for kind, text in sms_rows
    ]
    return write_rows(tmp_path_factory.mktemp("sets") / "sets.json", rows)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_the_loss_is_transformers_own_times_the_decisions(
    base_models: dict[str, Path], sets_json: Path, name: str
) -> None:
    built, prepared = build(recipe(base_models[name], sets_json))
    batch = prepared.task.collate(prepared.features["train"][:7])
    output = prepared.task.objective.loss(built.model.eval(), batch)
    assert built.base.model.config.problem_type == "multi_label_classification"
    theirs = built.model(**batch.inputs, labels=batch.labels)
    torch.testing.assert_close(output.loss_sum, theirs.loss * batch.labels.numel())
    assert batch.labels.shape == (7, 3) and output.loss_sum.dtype == torch.float32
    assert output.score_sum.item() == ((theirs.logits > 0) == (batch.labels > 0)).sum().item()


def test_what_nobody_said_takes_no_part_in_the_loss() -> None:
    outputs = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
    loss = BinaryCrossEntropy()
    whole = loss.of_outputs(outputs[:1], torch.tensor([[1.0, 0.0]]))
    nothing = loss.ignored(torch.tensor([[1.0, 0.0]]))
    found = loss.of_outputs(outputs, torch.cat([torch.tensor([[1.0, 0.0]]), nothing]))
    assert torch.equal(found.loss_sum, whole.loss_sum) and found.score_sum.item() == 2
    assert Features([1], nothing[0].tolist(), 1).num_targets == 0


def random_case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and truth of 200 texts and 5 labels; the last label is never there, and never said."""
    generator = torch.Generator().manual_seed(seed)
    truth = (torch.rand(200, 5, generator=generator) < torch.tensor([0.5, 0.3, 0.1, 0.02, 0.0])).float()
    outputs = 2 * torch.randn(200, 5, generator=generator) + 2 * truth - 1.5
    outputs[:, 4] = -20
    return outputs, truth


def test_figures_are_scikit_learns() -> None:
    outputs, truth = random_case()
    said, there = (outputs.double().sigmoid() >= 0.35).numpy(), truth.numpy() > 0
    found = figures(outputs, truth, list("abcde"), 0.35)
    assert found["f1_micro"] == pytest.approx(sklearn.f1_score(there, said, average="micro"), abs=FLOAT64_ROUNDING)
    shown = sklearn.f1_score(there, said, average="macro", labels=range(4))
    assert found["f1_macro"] == pytest.approx(shown, abs=FLOAT64_ROUNDING), "the label that nobody has takes no part"
    assert found["subset_accuracy"] == sklearn.accuracy_score(there, said)
    assert found["label_accuracy"] == pytest.approx(1 - sklearn.hamming_loss(there, said), abs=FLOAT64_ROUNDING)
    assert found["loss"] == pytest.approx(
        numpy.mean([sklearn.log_loss(there[:, i], outputs[:, i].double().sigmoid(), labels=[0, 1]) for i in range(5)]),
        abs=FLOAT32_ROUNDING,
    )
    theirs = zip(*sklearn.precision_recall_fscore_support(there, said, zero_division=0), strict=True)
    for name, expected in zip("abcde", theirs, strict=True):
        ours = [found["per_label"][name][key] for key in ("precision", "recall", "f1", "support")]
        assert ours == pytest.approx(expected, abs=FLOAT64_ROUNDING)
    for key in ("f1_micro", "f1_macro", "subset_accuracy"):
        low, high = found[f"{key}_interval"]
        assert low < found[key] < high
    assert found["majority_subset_accuracy"] == max(map(there.tolist().count, there.tolist())) / 200
    json.dumps(found, allow_nan=False)


def test_the_threshold_is_the_best_of_its_steps_and_the_nearest_to_a_half() -> None:
    outputs, truth = random_case()
    steps = [step / 20 for step in range(1, 20)]
    scores = {s: f1_of(counts(outputs.double().sigmoid() >= s, truth))["f1_micro"] for s in steps}
    found = best_threshold(outputs, truth)
    assert scores[found] == max(scores.values()) and found != 0.5
    sure = torch.tensor([[9.0], [-9.0]])
    assert best_threshold(sure, (sure > 0).float()) == 0.5, "all are equally good"


def test_a_single_label_is_a_yes_or_no(tmp_path: Path, tiny_bert: Path, sms_rows: list[tuple[str, str]]) -> None:
    lines = [f'"{text}",{int(kind == "spam")}\n' for kind, text in sms_rows]
    (tmp_path / "spam.csv").write_text("text,is_spam\n" + "".join(lines), encoding="utf-8")
    config = recipe(tiny_bert, tmp_path / "spam.csv", data={"columns": {"label": ["is_spam"]}})
    run = train(config, tmp_path / "run")
    results = lorafy.evaluate(run.path)
    assert results["labels"] == ["is_spam"] and results["verification"]["passed"]
    metrics = results["metrics"]
    assert metrics["per_label"]["is_spam"]["f1"] == metrics["f1_micro"] == metrics["f1_macro"]
    assert metrics["label_accuracy"] == metrics["subset_accuracy"]


def test_the_best_and_the_worst_label_of_the_picture() -> None:
    def figures_of(f1: float, support: int) -> dict[str, float]:
        return {"f1": f1, "support": support}

    labels = {"a": figures_of(0.9, 5), "b": figures_of(0.4, 3), "c": figures_of(0.0, 0)}
    shown = {name: name.upper() for name in labels}
    assert titles(labels, shown) == ("Best found: A, F1 90.0 %", "worst: B, F1 40.0 %"), "nobody could find c"
    assert titles({"a": labels["a"]}, shown) == ("A, F1 90.0 %", None)
    assert titles({"c": labels["c"]}, shown) == ("No text carries a label", None)


# A whole run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, sets_json: Path) -> RunDirectory:
    """Trained, evaluated in a fresh process, drawn. Read it only."""
    folder = tmp_path_factory.mktemp("run")
    config = recipe(tiny_bert, sets_json, run={"output_dir": str(folder), "name": "sets"}, train={"max_steps": 30})
    return lorafy.train(config, console=Console(quiet=True)).directory


def texts_and_truth(run: RunDirectory, split: str) -> tuple[list[str], numpy.ndarray]:
    examples = prepare(parse_config(recipe_of(run), "the run")).corpus.splits[split]
    return [e.text for e in examples], numpy.array([[name in e.label for name in NAMES] for e in examples])


def recipe_of(run: RunDirectory) -> dict[str, Any]:
    import yaml

    return yaml.safe_load(run.config.read_text(encoding="utf-8"))


def test_a_run_is_verified_and_its_figures_are_those_of_its_predictions(run: RunDirectory) -> None:
    results = read_json(run.eval_results)
    assert results["task"] == "multi_label" and results["verification"]["passed"]
    assert lorafy.verify(run.path)["passed"]
    assert lorafy.evaluate(run.path)["metrics"] == results["metrics"]
    texts, truth = texts_and_truth(run, "test")
    said = numpy.array([[name in p.labels for name in NAMES] for p in lorafy.load(run.path).predict(texts)])
    assert results["metrics"]["f1_micro"] == pytest.approx(sklearn.f1_score(truth, said, average="micro"))
    assert results["metrics"]["f1_micro"] > 0.6, "it learns"
    summary = read_json(run.summary)
    assert (summary["best_metric"], summary["fast_steps"]) == ("f1_micro", summary["num_steps"])


def test_the_threshold_is_the_validation_splits_and_goes_with_the_model(run: RunDirectory, tmp_path: Path) -> None:
    assert run.trained is not None
    manifest = read_manifest(run.trained)
    assert manifest is not None
    threshold = manifest.settings["threshold"]
    texts, truth = texts_and_truth(run, "validation")
    classifier = lorafy.load(run.path)
    shares = numpy.array([[p.probabilities[name] for name in NAMES] for p in classifier.predict(texts)])
    scores = {
        step / 20: sklearn.f1_score(truth, shares >= step / 20, average="micro", zero_division=0)
        for step in range(1, 20)
    }
    assert scores[threshold] == max(scores.values()) and threshold == classifier.threshold
    assert read_json(run.eval_results)["metrics"]["threshold"] == threshold
    lorafy.merge(run.path, tmp_path / "merged")
    assert lorafy.load(tmp_path / "merged").threshold == threshold
    for prediction in classifier.predict(texts):
        expected = [name for name in NAMES if prediction.probabilities[name] >= threshold]
        assert prediction.labels == expected and prediction.cells["labels"] == "|".join(expected)


def test_another_threshold_says_other_labels(tiny_bert: Path, sets_json: Path) -> None:
    built, prepared = build(recipe(tiny_bert, sets_json))
    task: Any = prepared.task
    assert isinstance(task, MultiLabel) and task.threshold == 0.5
    outputs = task.encoder.outputs(built.model.eval(), prepared.features["validation"], PLAIN)
    truth = torch.tensor([feature.labels for feature in prepared.features["validation"]])
    finished = task.finish(built.model, prepared.features["validation"], PLAIN)
    assert finished.threshold == best_threshold(outputs, truth) != 0.5, "an untrained head says yes to all or to none"
    assert finished.settings()["settings"] == {"threshold": finished.threshold}
    assert task.finish(built.model, None, PLAIN) is task, "nothing was held out"


@pytest.mark.parametrize(
    ("base", "method"), [("bert", "lora"), ("bert", "full"), ("bert", "none"), ("gpt2", "lora"), ("gpt2", "none")]
)
def test_plain_transformers_gives_the_same_probabilities(
    base_models: dict[str, Path], sets_json: Path, tmp_path: Path, base: str, method: str
) -> None:
    trained = train(recipe(base_models[base], sets_json, adapter={"method": method}), tmp_path / "run")
    assert lorafy.evaluate(trained.path)["verification"]["passed"]
    assert lorafy.merge(trained.path, tmp_path / "merged")["verification"]["passed"]
    texts = ["call now", "are you home ? see you at lunch", "free"]
    ours = [list(p.probabilities.values()) for p in lorafy.load(trained.path).predict(texts)]
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    assert plain.config.id2label == dict(enumerate(NAMES))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    with torch.inference_mode():
        theirs = [plain(**tokenizer(text, return_tensors="pt")).logits[0].sigmoid().tolist() for text in texts]
    assert ours == [pytest.approx(row, abs=FLOAT32_ROUNDING) for row in theirs]


def test_a_resumed_run_is_the_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bert: Path, sets_json: Path
) -> None:
    config = recipe(tiny_bert, sets_json, adapter={"dropout": 0.2}, train={"max_steps": 10, "save_every": 5})
    whole, resumed = whole_and_resumed(config, tmp_path, monkeypatch, 8)
    assert_same_run(resumed, whole)
    assert whole.trained is not None and resumed.trained is not None
    first, second = read_manifest(whole.trained), read_manifest(resumed.trained)
    assert first is not None and second is not None and first.settings == second.settings


def test_the_command_line_predicts_and_compares_files(run: RunDirectory, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, ["predict", str(run.path), "call now", "--json"])
    (prediction,) = json.loads(done.stdout)["predictions"]
    assert set(prediction["probabilities"]) == set(NAMES) and set(prediction["labels"]) <= set(NAMES)
    done = CliRunner().invoke(cli.app, ["predict", str(run.path), "call now", "--output", str(tmp_path / "out.csv")])
    assert done.exit_code == 0, done.output
    head, row = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert head == "text,labels,probability_call,probability_spam,probability_you" and row.startswith("call now,")


def test_the_report_shows_each_label(run: RunDirectory) -> None:
    page = run.report.read_text(encoding="utf-8")
    shown = ["Per label", "micro F1", "macro F1", "subset accuracy", "from a probability of", "Exactly right:", *NAMES]
    assert [words for words in shown if words not in page] == []
    assert {path.stem for path in run.plots.glob("*.png")} >= {"loss", "label_accuracy", "labels", "learning_rate"}
    splits = {record["split"] for record in read_jsonl(run.metrics) if "label_accuracy" in record}
    assert splits == {"train", "validation"}, "both curves"
