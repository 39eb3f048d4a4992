"""The proof, from disk alone: it passes for what was trained, and fails for what was broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import PATIENCE_SECONDS, run_cli, start
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import lorafy
from lorafy.config import load_config
from lorafy.evaluation.verify import TOLERANCES, check_differs, check_reloaded, relative_difference
from lorafy.models import trained_files as files
from lorafy.models.load import open_source
from lorafy.plugins import load_method
from lorafy.run_directory import RunDirectory
from lorafy.tasks import read_corpus
from lorafy.types import ModelError
from tiny_models import make_config
from tolerances import BFLOAT16_ROUNDING, FLOAT32_ROUNDING
from trained_runs import train

METHODS = ["lora", "full", "none"]
CHECKS = {
    "lora": ["file_unchanged", "same_base", "reloaded_equals_memory", "differs_from_base", "merged_equals_adapter"],
    "full": ["file_unchanged", "reloaded_equals_memory", "differs_from_base"],
    "none": ["file_unchanged", "same_base", "reloaded_equals_memory", "differs_from_base"],
}


@pytest.fixture(scope="module")
def finished(tiny_bert: Path, sms_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDirectory]:
    """A short run of each method on a base of its own; copy before you break it."""
    folder = tmp_path_factory.mktemp("finished")
    base = Path(shutil.copytree(tiny_bert, folder / "base"))
    runs = {}
    for method in METHODS:
        rate = {"lora": 2e-2, "full": 5e-3, "none": 1e-1}[method]
        settings = {"max_steps": 40, "batch_size": 14, "learning_rate": rate}
        config = make_config(base, sms_csv, adapter={"method": method}, train=settings)
        runs[method] = train(config, folder / method)
    return runs


@pytest.fixture
def broken(finished: dict[str, RunDirectory], tmp_path: Path) -> Callable[..., RunDirectory]:
    """A copy of a run whose weights `change` has changed; `forged`: with a checksum to match."""

    def make(method: str, change: Callable[[dict[str, torch.Tensor]], Any], forged: bool = False) -> RunDirectory:
        run = RunDirectory(shutil.copytree(finished[method].path, tmp_path / method))
        assert run.trained is not None
        path = run.trained / load_method(method).weights
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})
        if forged:
            manifest = json.loads((run.trained / files.MANIFEST).read_text(encoding="utf-8"))
            manifest["weights_sha256"] = files.file_sha256(path)
            (run.trained / files.MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        return run

    return make


def failed(result: dict[str, Any]) -> list[str]:
    assert result["passed"] == all(check["passed"] for check in result["checks"])
    return [check["name"] for check in result["checks"] if not check["passed"]]


@pytest.mark.parametrize("method", METHODS)
def test_what_was_trained_passes_every_check(finished, method: str):
    result = lorafy.verify(finished[method].path)
    assert [check["name"] for check in result["checks"]] == CHECKS[method]
    assert failed(result) == []
    figures = {check["name"]: check["figure"] for check in result["checks"]}
    assert figures["reloaded_equals_memory"] == 0.0, "one machine, one thread: the same bits"
    assert figures["differs_from_base"] > 10 * TOLERANCES["float32"], "the check sees real training"
    assert lorafy.verify(finished[method].trained) == result, "the folder alone is enough"


def test_in_a_fresh_process(finished):
    process = start("verify", finished["lora"].path)
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, said


def flip_one_value(tensors: dict[str, torch.Tensor]) -> None:
    name = sorted(tensors)[len(tensors) // 2]
    tensors[name].view(-1)[3] *= -1


def scale_one_tensor(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name in sorted(tensors) if "layer.1.output.dense" in name or "classifier" in name)
    tensors[name] *= 1.5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("change", [flip_one_value, scale_one_tensor])
def test_a_changed_tensor_fails(broken, monkeypatch, capsys, method: str, change):
    run = broken(method, change)
    assert run_cli(monkeypatch, "verify", run.path, "--json") == 1
    printed = capsys.readouterr()
    assert "file_unchanged" in failed(json.loads(printed.out))
    assert "do not use these files" in printed.err


@pytest.mark.parametrize("method", METHODS)
def test_the_logits_notice_it_without_the_checksum(broken, method: str):
    run = broken(method, scale_one_tensor, forged=True)
    assert failed(lorafy.verify(run.path)) == ["reloaded_equals_memory"]


def test_an_adapter_that_does_nothing_does_not_differ_from_the_base(broken):
    def forget(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            if "lora_B" in name:
                tensor.zero_()

    run = broken("lora", forget, forged=True)
    assert failed(lorafy.verify(run.path)) == ["reloaded_equals_memory", "differs_from_base"]


@pytest.mark.parametrize("method", METHODS)
def test_not_a_number_does_not_pass(broken, method: str):
    run = broken(method, lambda tensors: tensors[sorted(tensors)[0]].fill_(float("nan")), forged=True)
    if method == "lora":
        with pytest.raises(ModelError, match="no numbers"):
            lorafy.verify(run.path)
        return
    result = lorafy.verify(run.path)
    assert "reloaded_equals_memory" in failed(result)
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("method", METHODS)
def test_a_missing_tensor_is_the_users_error_and_named(broken, monkeypatch, capsys, method: str):
    gone = []

    def lose_one(tensors: dict[str, torch.Tensor]) -> None:
        gone.append(next(name for name in sorted(tensors) if "classifier" in name))
        del tensors[gone[0]]

    run = broken(method, lose_one)
    assert run_cli(monkeypatch, "verify", run.path) == 2
    assert gone[0] in capsys.readouterr().err


@pytest.mark.parametrize("method", ["lora", "none"])
def test_another_base_is_noticed(finished, tmp_path: Path, method: str):
    base = Path(finished[method].path.parent / "base" / "model.safetensors")
    original = base.read_bytes()
    tensors = load_file(base)
    name = next(name for name in tensors if name.endswith("layer.0.output.dense.weight"))
    try:
        save_file(tensors | {name: tensors[name] * 1.01}, base, metadata={"format": "pt"})
        assert "same_base" in failed(lorafy.verify(finished[method].path))
    finally:
        base.write_bytes(original)


@pytest.mark.parametrize("method", METHODS)
def test_a_merged_model_reloads_equal_with_its_label_names(finished, tmp_path: Path, method: str):
    output = tmp_path / "merged"
    result = lorafy.merge(finished[method].path, output)
    assert result["verification"]["passed"] and failed(result["verification"]) == []
    texts = ["win a free phone , call now", "see you at lunch", "ok"]
    before, after = (lorafy.load(path).classify(texts) for path in (finished[method].path, output))
    for left, right in zip(before, after, strict=True):
        assert left.probabilities == pytest.approx(right.probabilities, abs=BFLOAT16_ROUNDING)
    plain = AutoModelForSequenceClassification.from_pretrained(output, dtype=torch.float32)
    assert plain.config.id2label == {0: "ham", 1: "spam"}
    tokenizer = AutoTokenizer.from_pretrained(output)
    with torch.inference_mode():
        scores = plain(**tokenizer(texts, padding=True, return_tensors="pt")).logits.softmax(-1)
    for left, row in zip(before, scores.tolist(), strict=True):  # the run computes in float32, as this does
        assert left.probabilities == pytest.approx(dict(zip(["ham", "spam"], row, strict=True)), abs=FLOAT32_ROUNDING)
        assert left.label == max(left.probabilities, key=left.probabilities.__getitem__)
    assert not list(output.glob("adapter*")) and not list(tmp_path.glob(".*"))


def test_merging_leaves_the_run_as_it_was(finished, tmp_path: Path):
    before = {path: path.read_bytes() for path in finished["lora"].path.rglob("*") if path.is_file()}
    lorafy.merge(finished["lora"].path, tmp_path / "merged")
    assert {path: path.read_bytes() for path in finished["lora"].path.rglob("*") if path.is_file()} == before


def test_evaluation_from_disk_writes_metrics_and_proof(finished, tmp_path: Path):
    run = finished["lora"]
    results = lorafy.evaluate(run.path)
    assert json.loads(run.eval_results.read_text(encoding="utf-8")) == results
    assert results["split"] == "test" and results["num_examples"] == 16
    assert results["verification"]["passed"]
    in_memory = json.loads(run.checkpoints.joinpath("best.json").read_text(encoding="utf-8"))
    validation = lorafy.evaluate(run.path, [f"data.test={own_validation(run, tmp_path)}"])
    assert validation["metrics"]["accuracy"] == in_memory["accuracy"], "what was found best is what lies on disk"
    assert json.loads(run.eval_results.read_text(encoding="utf-8")) == results, "other data leave the result alone"


def own_validation(run: RunDirectory, folder: Path) -> Path:
    path = folder / "validation.jsonl"
    examples = read_corpus(load_config(run.config), open_source(load_config(run.config).model)).splits["validation"]
    path.write_text("".join(json.dumps({"text": e.text, "label": e.label}) + "\n" for e in examples), encoding="utf-8")
    return path


def test_an_unfinished_run_has_nothing_to_verify(finished, tmp_path: Path, monkeypatch, capsys):
    run = RunDirectory(shutil.copytree(finished["lora"].path, tmp_path / "run"))
    shutil.rmtree(run.adapter)
    assert run_cli(monkeypatch, "verify", run.path) == 2
    assert "--resume" in capsys.readouterr().err


def test_figures():
    a = torch.tensor([[1.0, -8.0]])
    assert relative_difference(a, a) == 0.0
    assert relative_difference(a + 0.5, a) == 0.5 / 8
    assert relative_difference(a * float("nan"), a) == float("inf")
    assert not check_differs(a, a).passed and check_differs(a + 1, a).passed
    near = a + 8 * 1e-4
    assert check_reloaded(near, a, "bfloat16", same_machine=False).passed
    assert not check_reloaded(near, a, "bfloat16", same_machine=True).passed
