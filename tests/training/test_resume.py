"""10 steps = 5 + resume + 5, bit for bit, dropout on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import trained_runs
from lorafy.config.schema import AdapterSection, RunConfig
from lorafy.run_directory import RunDirectory, read_jsonl
from lorafy.types import DataError, RunError
from tiny_models import make_config
from trained_runs import Killed, assert_same_run, kill_after, train, whole_and_resumed


def resumable(tiny_bert: Path, sms_csv: Path, method: str, **settings) -> RunConfig:
    """56 training rows: 7 steps an epoch, so that step 5 is in the middle of one, and of two lines of metrics."""
    adapter = {"method": method} | ({"dropout": 0.2} if method == "lora" else {})
    train_settings = {"max_steps": 10, "batch_size": 8, "save_every": 5, "log_every": 3, "evaluate_every": 4}
    return make_config(tiny_bert, sms_csv, adapter=adapter, train=train_settings | settings)


@pytest.mark.parametrize("method", ["lora", "full", "none"])
def test_ten_steps_are_five_and_five(tmp_path: Path, monkeypatch, tiny_bert: Path, sms_csv: Path, method: str):
    config = resumable(tiny_bert, sms_csv, method)
    whole, resumed = whole_and_resumed(config, tmp_path, monkeypatch, 8)
    assert_same_run(resumed, whole)
    train_steps = [r["step"] for r in read_jsonl(resumed.metrics) if r["split"] == "train"]
    assert train_steps == [3, 6, 9, 10], "no line twice, none missing"


VARIANTS: list[dict[str, Any]] = [
    {"lr_ratio": 16, "dropout": 0.2},
    {"method": "dora", "dropout": 0.2},
    {"method": "pissa", "dropout": 0.2, "lr_ratio": 4},
    {"method": "olora", "use_rslora": True},
    {"trainable_token_indices": [3, 7], "modules_to_save": ["LayerNorm", "pooler"]},
    {"rank_pattern": {"query": 2}, "layers_to_transform": 1},
]


@pytest.mark.parametrize("adapter", VARIANTS, ids=lambda adapter: "-".join(map(str, adapter)))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_so_are_those_of_lora_s_other_forms(tmp_path: Path, monkeypatch, tiny_bert, sms_csv, adapter, dtype: str):
    config = resumable(tiny_bert, sms_csv, "lora")
    section = AdapterSection(**adapter)
    model = config.model.model_copy(update={"dtype": dtype})
    config = config.model_copy(update={"adapter": section, "model": model})
    whole, resumed = whole_and_resumed(config, tmp_path, monkeypatch, 8)
    assert_same_run(resumed, whole)


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path, monkeypatch, tiny_bert, sms_csv):
    config = resumable(tiny_bert, sms_csv, "lora", evaluate_every=None)
    with monkeypatch.context() as patch:
        kill_after(patch, 4)
        with pytest.raises(Killed):
            train(config, tmp_path / "parts")
    assert_same_run(train(config, tmp_path / "parts", resume=True), train(config, tmp_path / "whole"))


def test_same_seed_same_bytes_and_another_seed_other_bytes(tmp_path: Path, tiny_bert: Path, sms_csv: Path):
    config = resumable(tiny_bert, sms_csv, "lora", max_steps=3)
    first, second = train(config, tmp_path / "a"), train(config, tmp_path / "b")
    assert_same_run(first, second)
    other = config.model_copy(update={"run": config.run.model_copy(update={"seed": 43})})
    with pytest.raises(AssertionError, match="tensors differ"):
        assert_same_run(first, train(other, tmp_path / "c"))


def test_a_checkpoint_of_another_version_is_refused(tmp_path, monkeypatch, tiny_bert, sms_csv):
    config = resumable(tiny_bert, sms_csv, "lora")
    with monkeypatch.context() as patch:
        kill_after(patch, 5)
        with pytest.raises(Killed):
            train(config, tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    state = run.checkpoint(run.named_step("last") or 0) / "state.json"
    values = json.loads(state.read_text(encoding="utf-8"))
    values["window"]["num_correct"] = values["window"].pop("score_sum")
    state.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(RunError, match="another version of lorafy"):
        train(config, tmp_path / "run", resume=True)


def test_data_that_changed_since_the_start_is_refused(tmp_path, monkeypatch, tiny_bert, sms_csv):
    data = tmp_path / "sms.csv"
    data.write_bytes(sms_csv.read_bytes())
    config = resumable(tiny_bert, data, "lora")
    with monkeypatch.context() as patch:
        kill_after(patch, 6)
        with pytest.raises(Killed):
            train(config, tmp_path / "run")
    data.write_text(data.read_text(encoding="utf-8").replace("lunch", "dinner"), encoding="utf-8")
    with pytest.raises(DataError, match="the data changed"):
        train(config, tmp_path / "run", resume=True)


def test_a_half_written_last_line_of_metrics_is_not_kept(tmp_path, monkeypatch, tiny_bert, sms_csv):
    config = resumable(tiny_bert, sms_csv, "none", evaluate_every=None)
    with monkeypatch.context() as patch:
        kill_after(patch, 8)
        with pytest.raises(Killed):
            train(config, tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"split": "train", "st')
    run = train(config, tmp_path / "run", resume=True)
    assert [record["step"] for record in trained_runs.metrics(run)] == [3, 6, 9, 10]


def test_a_directory_that_another_process_holds_is_refused(tmp_path, tiny_bert, sms_csv):
    config = resumable(tiny_bert, sms_csv, "none", max_steps=2)
    run = train(config, tmp_path / "run")
    with run.lock(), pytest.raises(RunError, match="another process is training in it"):
        train(config, tmp_path / "run", resume=True)
