"""AdaLoRA in whole runs of a tiny model: the budget, what is kept, what is logged, a kill in the schedule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lorafy.run_directory import RunDirectory, read_json, read_jsonl
from tiny_models import make_config
from trained_runs import Killed, assert_same_run, kill_after, train


def recipe(base: Path, data: Path, **settings: Any) -> Any:
    """Ranks are taken away from step 3 to 10 of 16, every other step; each epoch has seven steps."""
    adapter = {"method": "adalora", "r": 3, "dropout": 0.2, "tinit": 2, "tfinal": 6, "deltaT": 2}
    section = {"max_steps": 16, "batch_size": 8, "log_every": 3, "evaluate_every": 3, "save_every": 1}
    return make_config(base, data, adapter=adapter, train=section | {"learning_rate": 5e-3} | settings)


def method_state(run: RunDirectory, step: int) -> dict[str, Any]:
    return torch.load(run.checkpoint(step) / "optimizer.pt", weights_only=True)["method"]


@pytest.fixture(scope="module")
def finished(tiny_bert: Path, sms_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return train(recipe(tiny_bert, sms_csv), tmp_path_factory.mktemp("adalora") / "run")


def test_the_budget_is_met_and_the_ranks_over_time_are_recorded(finished: RunDirectory):
    lines = read_jsonl(finished.ranks)
    steps = [line["step"] for line in lines]
    assert steps[:3] == [0, 4, 6] and set(steps) <= {0, 4, 6, 8, 10}, "a line where they changed"
    totals = [sum(line["ranks"].values()) for line in lines]
    assert totals[0] == 13 * 5 and totals[-1] == 13 * 3 and totals == sorted(totals, reverse=True)
    last = lines[-1]["ranks"]
    assert list(last)[:2] == ["bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.0.attention.self.key"]
    tensors = load_file(finished.adapter / "adapter_model.safetensors")
    on_disk = {name: len(tensor) for name, tensor in tensors.items() if name.endswith("lora_E")}
    assert on_disk == {f"base_model.model.{name}.lora_E": rank for name, rank in last.items()}
    settings = json.loads((finished.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert (settings["init_r"], settings["target_r"], settings["total_step"]) == (5, 3, 16)


def test_only_weights_that_meet_the_budget_are_kept(finished: RunDirectory):
    best = read_json(finished.summary)["best_step"]
    validated = [line["step"] for line in read_jsonl(finished.metrics) if line["split"] == "validation"]
    assert validated == [3, 6, 9, 12, 15, 16] and best in (12, 15, 16)


def test_the_term_is_logged(finished: RunDirectory):
    terms = [line["regularisation"] for line in read_jsonl(finished.metrics) if line["split"] == "train"]
    assert len(terms) == 6 and all(0.1 < term < 5 for term in terms)


@pytest.mark.parametrize("step", [1, 5, 9, 10, 13])
def test_a_run_killed_anywhere_in_the_schedule_is_the_same_run(
    finished: RunDirectory, tiny_bert: Path, sms_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
):
    config = recipe(tiny_bert, sms_csv)
    with monkeypatch.context() as patch:
        kill_after(patch, step + 1)
        with pytest.raises(Killed):
            train(config, tmp_path / "run")
    resumed = train(config, tmp_path / "run", resume=True)
    assert_same_run(resumed, finished)
    assert resumed.ranks.read_bytes() == finished.ranks.read_bytes()
    left, right = (method_state(run, 16) for run in (resumed, finished))
    assert left["rank_pattern"] == right["rank_pattern"] and left["exp_avg_ipt"] == right["exp_avg_ipt"] == {}


def test_the_averages_are_in_the_checkpoint(tiny_bert: Path, sms_csv: Path, tmp_path: Path):
    run = train(recipe(tiny_bert, sms_csv, keep_checkpoints=20, evaluate_every=None), tmp_path / "run")
    states = {step: method_state(run, step) for step in (1, 5, 12)}
    assert states[1]["rank_pattern"] is None and sum(map(sum, states[12]["rank_pattern"].values())) == 13 * 3
    assert all(tensor.count_nonzero() for tensor in states[5]["exp_avg_ipt"].values())
    assert set(states[5]["exp_avg_unc"]) == set(states[5]["exp_avg_ipt"])
