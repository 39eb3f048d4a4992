"""What docs/architecture.md says that one new thing costs: each is added here from outside, and used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from installation import ADDED
from rich.console import Console
from typer.testing import CliRunner

import lorafy
from lorafy import cli
from lorafy.cli.arguments import messages
from lorafy.plugins import load_method, load_plugin, plugin_names
from lorafy.run_directory import read_jsonl
from lorafy.types import ConfigError
from trained_runs import Killed, kill_after

pytestmark = pytest.mark.usefixtures("installed")


def recipe(base: Path, data: Path, folder: Path, **sections: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "run": {"output_dir": str(folder), "name": "first"},
        "model": {"path": str(base), "dtype": "float32"},
        "data": {"train": str(data)},
        "train": {"max_steps": 20, "batch_size": 16, "learning_rate": 1e-2},
        "trackers": ["jsonl"],
    }
    return tree | sections


def lorafy_verb(*words: Any) -> Any:
    done = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert done.exit_code == 0, done.output + repr(done.exception)
    return json.loads(done.stdout)


def assert_a_whole_life(run: lorafy.Run, text: str) -> Any:
    """Trained, evaluated, verified, reported; verified and predicted with again. Gives the prediction."""
    assert run.results["verification"]["passed"], run.results["verification"]
    assert run.directory.report.is_file() and list(run.directory.plots.glob("*.png"))
    assert lorafy_verb("verify", run.path, "--json")["passed"]
    assert lorafy_verb("evaluate", run.path, "--json")["metrics"] == run.results["metrics"]
    (prediction,) = lorafy_verb("predict", run.path, text, "--json")["predictions"]
    return prediction


def test_every_plug_in_is_found_beside_lorafys_own() -> None:
    for seam, names in ADDED.items():
        folder = seam.replace(".", "/")
        assert set(names) < set(plugin_names(folder))
        for name in names:
            assert load_plugin(folder, name).__doc__


def test_a_task(base_models: dict[str, Path], sms_csv: Path, sms_rows: list[tuple[str, str]], tmp_path: Path) -> None:
    run = lorafy.train(recipe(base_models["bert"], sms_csv, tmp_path, task="yes_no"), console=Console(quiet=True))
    assert run.results["task"] == run.summary["task"] == "yes_no"
    assert run.summary["best_metric"] == "right" and run.results["metrics"]["right"] > 0.8
    assert run.summary["fast_steps"] == run.summary["num_steps"]
    label, text = sms_rows[0]
    prediction = assert_a_whole_life(run, text)
    assert prediction["yes"] == (label == run.results["labels"][0])
    page = run.directory.report.read_text(encoding="utf-8")
    assert "Share of right answers" in page and "right.png" not in page and "share of right answers" in page
    assert {"right"} < set(read_jsonl(run.directory.metrics)[0])


def test_a_method(base_models: dict[str, Path], sms_csv: Path, sms_rows: list[tuple[str, str]], tmp_path: Path) -> None:
    tree = recipe(base_models["bert"], sms_csv, tmp_path, adapter={"method": "bitfit"})
    run = lorafy.train(tree, console=Console(quiet=True))
    assert run.summary["method"] == "bitfit"
    method: Any = load_method("bitfit")
    assert method.num_steps == 20 and method.updates[-20:] == list(range(1, 21))
    logged = [record for record in read_jsonl(run.path / "metrics.jsonl") if record["split"] == "train"]
    assert all(record["regularisation"] > 0 for record in logged), "its own term of the loss"
    assert (run.path / "adapter" / "biases.safetensors").is_file()
    assert set(assert_a_whole_life(run, sms_rows[0][1])["probabilities"]) == {"ham", "spam"}


def test_a_methods_factor_on_the_learning_rate_and_its_state(
    base_models: dict[str, Path], sms_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections: dict[str, Any] = {"adapter": {"method": "bitfit"}}
    train = {"max_steps": 6, "batch_size": 16, "learning_rate": 1e-2, "save_every": 2}
    method: Any = load_method("bitfit")
    method.updates = []
    seen: list[list[float]] = []
    after_update = type(method).after_update

    def watched(self: Any, model: Any, step: int) -> None:
        seen.append([group["lr"] for group in optimizers[-1].param_groups])
        after_update(self, model, step)

    import lorafy.workflows.train as workflow

    optimizers: list[Any] = []
    make = workflow.make_optimizer

    def kept(*args: Any) -> Any:
        optimizers.append(make(*args))
        return optimizers[-1]

    monkeypatch.setattr(workflow, "make_optimizer", kept)
    monkeypatch.setattr(type(method), "after_update", watched)
    tree = recipe(base_models["bert"], sms_csv, tmp_path, **sections, train=train)
    with monkeypatch.context() as patch:
        kill_after(patch, 5)
        with pytest.raises(Killed):
            lorafy.train(tree, console=Console(quiet=True))
    assert method.updates == [1, 2, 3, 4, 5]
    assert all(2 * matrices == vectors for matrices, vectors in seen)
    method.updates = []
    lorafy.train(tree, resume=True, console=Console(quiet=True))
    assert method.updates == [1, 2, 3, 4, 5, 6]  # four of them out of the checkpoint


def test_a_format_and_a_check(base_models: dict[str, Path], sms_rows: list[tuple[str, str]], tmp_path: Path) -> None:
    data = tmp_path / "shouted.jsonl"
    lines = [json.dumps({"shouted": f"{label}! {text}"}) for label, text in sms_rows]
    data.write_text("\n".join(lines), encoding="utf-8")
    from lorafy.data.labelled import ClassRecords

    ClassRecords.formats, before = ("labelled", "shouted"), ClassRecords.formats  # a task says which it learns from
    try:
        found = lorafy_verb("prepare", write(tmp_path, recipe(base_models["bert"], data, tmp_path)), "--json")
    finally:
        ClassRecords.formats = before
    assert found["format"] == "shouted" and found["labels"] == ["ham", "spam"]
    assert any(finding["check"] == "shouting" for finding in found["findings"])


def test_a_tracker(base_models: dict[str, Path], sms_csv: Path, tmp_path: Path) -> None:
    tree = recipe(base_models["bert"], sms_csv, tmp_path, trackers=["memory"])
    lorafy.train(tree | {"train": {"max_steps": 2}}, console=Console(quiet=True))
    records = load_plugin("trackers", "memory").RECORDS
    assert records[-1] == {"closed": True} and records[0]["split"] == "train"


def test_a_model_family(language_bases: dict[str, Path]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from lorafy.engine.fast_path import read_network
    from lorafy.engine.weights import Unsupported

    model: Any = AutoModelForCausalLM.from_pretrained(language_bases["gpt2"]).requires_grad_(False)
    model.config.model_type = "shy-gpt2"
    assert read_network(model, "tokens", torch.float32) is not None
    model.config.model_type = "unknown"
    with pytest.raises(Unsupported, match="not written for unknown"):
        read_network(model, "tokens", torch.float32)


def test_a_verb(tmp_path: Path) -> None:
    def shout(text: str) -> None:
        """Say it louder."""
        messages().print(text.upper())

    app = typer.Typer()
    for verb in (*(command.callback for command in cli.app.registered_commands), shout):
        app.command()(verb)  # type: ignore[type-var]
    done = CliRunner().invoke(app, ["shout", "hello"])
    assert done.exit_code == 0 and done.stdout.strip() == "HELLO"


def test_a_name_that_nobody_offers_is_refused(sms_csv: Path, tmp_path: Path) -> None:
    tree = recipe(tmp_path, sms_csv, tmp_path, task="yes_know", adapter={"method": "bitfat"})
    with pytest.raises(ConfigError) as refused:
        lorafy.train(tree, console=Console(quiet=True))
    assert {problem.where for problem in refused.value.problems} == {"task", "adapter.method"}


def write(folder: Path, tree: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(tree), encoding="utf-8")  # YAML too
    return path
