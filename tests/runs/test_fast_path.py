"""Whole runs on the fast path: it was taken, it resumes bit for bit, what it trained is what is saved."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import lorafy
from lorafy.config.schema import RunConfig
from lorafy.kernels.build import COMPILERS, load_library
from lorafy.run_directory import read_json
from tiny_models import make_config, with_dropout
from tolerances import FLOAT32_UPDATES
from trained_runs import Killed, assert_same_run, kill_after, metrics, train, whole_and_resumed

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not any(map(shutil.which, COMPILERS)),
    reason="compiled operations need Linux and a C++ compiler",
)


def resumable(base: Path, data: Path, **settings: Any) -> RunConfig:
    """56 training rows: 7 steps an epoch, so that step 5 is in the middle of one. The base itself drops 0.1."""
    steps = {"max_steps": 10, "batch_size": 8, "save_every": 5, "log_every": 3, "evaluate_every": 4}
    return make_config(base, data, adapter={"r": 4, "dropout": 0.2}, train=steps | settings)


@contextmanager
def without_compiler(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(folder))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        load_library.cache_clear()
        yield
    load_library.cache_clear()


def test_a_run_is_trained_on_it_and_verified(tiny_bert: Path, sms_csv: Path, tmp_path: Path) -> None:
    settings = {"max_steps": 40, "batch_size": 14, "learning_rate": 2e-2}
    config = make_config(
        tiny_bert, sms_csv, adapter={"dropout": 0.1}, train=settings, run={"output_dir": str(tmp_path / "runs")}
    )
    with (tmp_path / "said.txt").open("w", encoding="utf-8") as file:
        run = lorafy.train(config, console=Console(file=file, width=400))
    said = (tmp_path / "said.txt").read_text(encoding="utf-8")
    assert "Kernels: fast path, held against the plain path on the first examples: loss " in said
    assert run.summary["num_steps"] == run.summary["fast_steps"] == 40
    assert run.results["verification"]["passed"], run.results["verification"]
    assert run.results["metrics"]["accuracy"] > 0.9, "it has learned"


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_it_trains_the_same_weights_without_dropout(
    base_models: dict[str, Path], sms_csv: Path, tmp_path: Path, kind: str
) -> None:
    """Ten steps on each path (GPT-2's classifier: with fused layers), the same losses; `train.kernels` decides."""
    runs = {}
    for kernels in ("auto", "reference"):
        config = make_config(
            with_dropout(base_models[kind], tmp_path / kernels / "base", 0.0),
            sms_csv,
            train={"max_steps": 10, "batch_size": 8, "log_every": 1, "evaluate_every": 5, "kernels": kernels},
        )
        runs[kernels] = train(config, tmp_path / kernels / "run")
    assert read_json(runs["auto"].summary)["fast_steps"] == 10
    assert read_json(runs["reference"].summary)["fast_steps"] == 0
    for fast, plain in zip(metrics(runs["auto"]), metrics(runs["reference"]), strict=True):
        assert fast["step"] == plain["step"] and fast["accuracy"] == plain["accuracy"]
        assert fast["loss"] == pytest.approx(plain["loss"], rel=FLOAT32_UPDATES)


@pytest.mark.parametrize("kind", ["classifier", "language model", "fused layers"])
def test_ten_steps_are_five_and_five(
    base_models: dict[str, Path],
    language_bases: dict[str, Path],
    sms_csv: Path,
    sums_json: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """Killed after step 8, the last checkpoint is that of step 5."""
    base, data = {
        "classifier": (base_models["bert"], sms_csv),
        "language model": (language_bases["qwen3"], sums_json),
        "fused layers": (base_models["gpt2"], sms_csv),
    }[kind]
    whole, resumed = whole_and_resumed(resumable(base, data), tmp_path, monkeypatch, 8)
    assert_same_run(resumed, whole)
    assert [read_json(run.summary)["fast_steps"] for run in (whole, resumed)] == [10, 10]


def test_a_run_that_began_on_the_plain_path_stays_there(
    tiny_bert: Path, sms_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun where no compiler is, resumed where one is: the same bits as in one sitting."""
    config = resumable(tiny_bert, sms_csv)
    with without_compiler(monkeypatch, tmp_path):
        whole = train(config, tmp_path / "whole")
        with monkeypatch.context() as patch:
            kill_after(patch, 8)
            with pytest.raises(Killed):
                train(config, tmp_path / "parts")
    resumed = train(config, tmp_path / "parts", resume=True)
    assert_same_run(resumed, whole)
    assert read_json(resumed.summary)["fast_steps"] == 0


def test_a_run_that_goes_on_without_a_compiler_counts_its_fast_steps(
    tiny_bert: Path, sms_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = resumable(tiny_bert, sms_csv)
    with monkeypatch.context() as patch:
        kill_after(patch, 8)
        with pytest.raises(Killed):
            train(config, tmp_path / "run")
    with without_compiler(monkeypatch, tmp_path):
        run = train(config, tmp_path / "run", resume=True)
    summary = read_json(run.summary)
    assert (summary["num_steps"], summary["fast_steps"]) == (10, 5)


def test_how_a_step_is_cut_does_not_change_a_run(tiny_bert: Path, sms_csv: Path, tmp_path: Path) -> None:
    """With dropout on: the masks are those of examples and tokens, whatever batch they are in."""
    runs = [
        train(resumable(tiny_bert, sms_csv, log_every=1, micro_batch_size=most), tmp_path / str(most))
        for most in (None, 3)
    ]
    for one, other in zip(*(metrics(run) for run in runs), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=FLOAT32_UPDATES)
