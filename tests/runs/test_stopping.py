"""A base whose end token pretraining never showed learns to stop under LoRA: stories260K on descriptions of E2E."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

import lorafy

PROMPTS = 20


def excerpt(source: Path, rows: int, target: Path) -> Path:
    """The first rows; the data set's lines are `meaning||sentence`."""
    with source.open(encoding="utf-8") as lines:
        target.write_text("".join(islice(lines, rows)), encoding="utf-8")
    return target


@pytest.mark.slow
def test_it_stops_under_lora(shared_data: Path, stories: Path, tmp_path: Path) -> None:
    """By the defaults, rate and all: 1,000 rows, 160 steps. Every greedy answer ends by the end token."""
    e2e = shared_data / "e2e_nlg"
    data = {
        "train": str(excerpt(e2e / "valid.txt", 1_000, tmp_path / "train.txt")),
        "validation": str(excerpt(e2e / "test.txt", 100, tmp_path / "validation.txt")),
        "test": str(excerpt(e2e / "test.txt", 200, tmp_path / "test.txt")),
    }
    tree = {
        "model": {"path": str(stories), "dtype": "float32"},
        "data": data,
        "generation": {"evaluate_prompts": PROMPTS},
        "run": {"output_dir": str(tmp_path / "runs")},
    }
    results = lorafy.train(tree).results
    written = results["metrics"]["generation"]
    assert written["num_prompts"] == PROMPTS
    assert (written["ended"], written["looped"]) == (1.0, 0.0)
    assert all(sample["ended"] for sample in results["samples"])
    assert results["base"]["generation"]["ended"] < 0.5, "it did not before"
    assert results["verification"]["passed"]
