"""Which precision is chosen, and that what is trained stays float32 in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lorafy.models import precision
from lorafy.models.precision import choose_precision
from lorafy.plugins import load_method
from tiny_models import make_config
from trained_runs import metrics, train

CPU = torch.device("cpu")


def test_float16_on_a_cpu_is_float32_and_says_so():
    chosen = choose_precision("float16", CPU)
    assert chosen.dtype == torch.float32 and not chosen.scales_loss
    assert chosen.note is not None and "float16" in chosen.note


@pytest.mark.parametrize(("fast", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_takes_bfloat16_where_the_processor_is_fast_at_it(monkeypatch, fast: bool, expected: torch.dtype):
    monkeypatch.setattr(precision, "cpu_has_fast_bfloat16", lambda: fast)
    assert choose_precision("auto", CPU).dtype == expected


@pytest.mark.parametrize("method", ["lora", "full", "none"])
def test_a_run_in_bfloat16_learns_and_keeps_float32_on_disk(tmp_path: Path, tiny_bert, sms_csv, method: str):
    config = make_config(
        tiny_bert,
        sms_csv,
        model={"dtype": "bfloat16"},
        adapter={"method": method},
        train={"max_steps": 30, "batch_size": 14, "learning_rate": 5e-3, "log_every": 5},
    )
    run = train(config, tmp_path / method)
    losses = [record["loss"] for record in metrics(run) if record["split"] == "train"]
    if method != "none":  # over a random encoder a head learns next to nothing
        assert losses[-1] < 0.8 * losses[0]
    assert run.trained is not None
    tensors = load_file(run.trained / load_method(method).weights)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_float16_trains_on_a_cpu(tmp_path: Path, tiny_bert: Path, sms_csv: Path):
    config = make_config(tiny_bert, sms_csv, model={"dtype": "float16"}, train={"max_steps": 1})
    plain = make_config(tiny_bert, sms_csv, model={"dtype": "float32"}, train={"max_steps": 1})
    assert metrics(train(config, tmp_path / "half")) == metrics(train(plain, tmp_path / "single"))
