"""The embedded run, with the real MiniLM weights, shortened."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import Outcome
from lorafy.models import embedded
from lorafy.types import ModelError


def test_demo_trains_verifies_and_predicts(lorafy: Callable[..., Outcome], tmp_path: Path) -> None:
    done = lorafy("demo", "train.num_epochs=0.25", "--output-dir", tmp_path / "runs", "--json")
    assert done.code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["summary"]["num_steps"] == 4
    assert answer["results"]["verification"]["passed"]
    assert answer["predictions"][0]["text"] == "Hey, want to grab lunch together?"
    run = Path(answer["run"])
    assert run.name == "demo-1"
    for name in ("report.html", "adapter/adapter_model.safetensors", "eval_results.json", "plots/loss.png"):
        assert (run / name).is_file(), name
    assert "newly initialized" not in done.stderr, "the library's alarming table is one plain line"
    assert "The head (classifier) is new" in done.stderr


def test_weights_that_are_not_the_published_ones_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "model.safetensors"
    other.write_bytes(b"something else")
    with pytest.raises(ModelError, match="is not the file that was published"):
        embedded._check_weights(other)
