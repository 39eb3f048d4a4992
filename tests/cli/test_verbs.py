"""Each verb as a user calls it, on a tiny trained model; `--json` is one object on stdout and nothing else."""

from __future__ import annotations

import csv
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import lorafy as library
from command_line import Outcome

Verb = Callable[..., Outcome]


@pytest.fixture(scope="module")
def tree(tiny_bert: Path, sms_csv: Path) -> dict[str, Any]:
    return {
        "model": {"path": str(tiny_bert)},
        "data": {"train": str(sms_csv)},
        "train": {"num_epochs": 3, "batch_size": 16, "learning_rate": 0.01},
    }


@pytest.fixture(scope="module")
def run(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run for the whole file. Read it only."""
    folder = tmp_path_factory.mktemp("runs")
    return library.train({**tree, "run": {"name": "tiny", "output_dir": str(folder)}}, ["train.num_epochs=10"]).path


@pytest.fixture
def recipe_file(tree: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def test_train_says_where_everything_lies(lorafy: Verb, recipe_file: Path, tmp_path: Path) -> None:
    done = lorafy("train", recipe_file, f"run.output_dir={tmp_path / 'runs'}", "train.num_epochs=1", "--json")
    assert done.code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert set(answer) == {"run", "summary", "results"}
    assert Path(answer["run"]).name == "tiny-1"
    assert "report.html" in done.stderr
    assert "Trained 4 steps in" in done.stderr


def test_a_run_is_repeated_by_its_config(lorafy: Verb, run: Path) -> None:
    done = lorafy("train", run / "config.yaml", "--json")
    assert done.code == 0, done.stderr
    again = Path(json.loads(done.stdout)["run"])
    assert again.parent == run.parent and again.name == "tiny-1"
    weights = [(path / "adapter" / "adapter_model.safetensors").read_bytes() for path in (run, again)]
    assert weights[0] == weights[1], "the same recipe, seed and machine give the same bytes"


def test_evaluate_writes_what_it_says(lorafy: Verb, run: Path) -> None:
    done = lorafy("evaluate", run, "--json")
    assert done.code == 0, done.stderr
    results = json.loads(done.stdout)
    assert results == json.loads((run / "eval_results.json").read_text(encoding="utf-8"))
    assert results["split"] == "test" and results["verification"]["passed"]


def test_evaluate_scores_other_data(lorafy: Verb, run: Path, sms_csv: Path) -> None:
    before = (run / "eval_results.json").read_bytes()
    for split in ("test", "validation"):
        done = lorafy("evaluate", run, f"data.{split}={sms_csv}", "--json")
        assert done.code == 0, done.stderr
        assert json.loads(done.stdout)["num_examples"] == 80
    assert (run / "eval_results.json").read_bytes() == before, "results of other data do not replace the run's own"


def test_predict_from_arguments_stdin_and_file(lorafy: Verb, run: Path, tmp_path: Path) -> None:
    text = "win a phone now , call the number to claim your prize"
    answer = json.loads(lorafy("predict", run, text, "--json").stdout)["predictions"][0]
    assert answer["label"] == "spam"
    assert set(answer["probabilities"]) == {"ham", "spam"}
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert lorafy("predict", run, stdin=f"{text}\n\n{text}\n".encode()).stdout.count("spam\t") == 2

    (tmp_path / "in.csv").write_text(f'text\n"{text}"\n', encoding="utf-8")
    assert lorafy("predict", run, "--input", tmp_path / "in.csv", "--output", tmp_path / "out.csv").code == 0
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["text"] == text and rows[0]["label"] == "spam"


def test_merge_is_an_ordinary_model(lorafy: Verb, run: Path, tmp_path: Path) -> None:
    text = "are you coming home for the book tonight"
    assert lorafy("merge", run, "--output", tmp_path / "merged").code == 0
    ours = json.loads(lorafy("predict", run, text, "--json").stdout)["predictions"][0]
    merged = json.loads(lorafy("predict", tmp_path / "merged", text, "--json").stdout)["predictions"][0]
    assert merged["label"] == ours["label"] == "ham"
    assert merged["probability"] == pytest.approx(ours["probability"], abs=0.02)
    again = lorafy("merge", run, "--output", tmp_path / "merged")
    assert again.code == 2 and "is there already" in again.stderr


def test_plan_trains_nothing(lorafy: Verb, recipe_file: Path, tmp_path: Path) -> None:
    done = lorafy("plan", recipe_file, f"run.output_dir={tmp_path / 'runs'}", "--json")
    assert done.code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["forecast"]["num_steps"] == 12
    assert {group["name"] for group in answer["targets"]} >= {"attention.self.query", "output.dense"}
    assert not (tmp_path / "runs").exists()


def test_prepare_and_config(lorafy: Verb, recipe_file: Path, tmp_path: Path) -> None:
    done = lorafy("prepare", recipe_file, "--output", tmp_path / "prepared", "--json")
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["splits"]["train"]["rows"] == 56
    assert (tmp_path / "prepared" / "dataset_dict.json").is_file()
    resolved = json.loads(lorafy("config", recipe_file, "adapter.r=4", "--json").stdout)
    assert resolved["adapter"]["r"] == 4 and resolved["adapter"]["alpha"] == 32
    assert "rank of the LoRA matrices" in lorafy("config", recipe_file).stdout


def test_verify_in_words(lorafy: Verb, run: Path) -> None:
    done = lorafy("verify", run)
    assert done.code == 0
    assert done.stdout.count("ok ") == 5


@pytest.mark.slow
def test_compare_makes_one_table(lorafy: Verb, recipe_file: Path, tmp_path: Path) -> None:
    done = lorafy("compare", recipe_file, f"run.output_dir={tmp_path / 'runs'}", "train.num_epochs=1", "--json")
    assert done.code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [row["method"] for row in answer["rows"]] == ["none", "lora", "full"]
    assert [row["learning_rate"] for row in answer["rows"]] == [1e-3, 0.01, 5e-5]
    assert all(row["verified"] for row in answer["rows"])
    counts = [row["trainable_parameters"] for row in answer["rows"]]
    assert counts == sorted(counts)
    assert (Path(answer["directory"]) / "report.html").is_file()


def test_the_version_is_told(lorafy: Verb) -> None:
    done = lorafy("--version")
    assert (done.code, done.stdout) == (0, f"lorafy {importlib.metadata.version('lorafy')}\n")
