"""Two processes on the CPU (gloo) against one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from processes import run_cli

from lorafy.config import load_config
from lorafy.run_directory import RunDirectory
from tolerances import FLOAT32_UPDATES
from trained_runs import metrics, train, trained_tensors


def without_dropout(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return target


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, encoding="utf-8", check=False, timeout=300
    )


DRIVER = """
import os, signal, sys
from pathlib import Path
from rich.console import Console
from lorafy.config import load_config
from lorafy.run_directory import RunDirectory
from lorafy.training.display import ProgressDisplay
from lorafy.workflows.runs import with_run
from lorafy.workflows.train import run_training

recipe, path, stop_step, *settings = sys.argv[1:]
shown = ProgressDisplay.on_step

def on_step(display, stats):
    shown(display, stats)
    if stats.step == int(stop_step) and os.environ["RANK"] == "1":
        signal.raise_signal(signal.SIGTERM)

ProgressDisplay.on_step = on_step
config = with_run(load_config(recipe, settings), Path(path))
run_training(config, RunDirectory(path), resume=False, console=Console(quiet=True))
"""


@pytest.fixture
def driver(tmp_path: Path) -> str:
    """A script that trains without what follows training."""
    path = tmp_path / "driver.py"
    path.write_text(DRIVER, encoding="utf-8")
    return str(path)


def test_processes_that_do_not_see_each_other_are_refused(stoppable_recipe: Path, monkeypatch, capsys):
    """What became of a launch before `join_processes`: each took itself for the only one, and both wrote."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run_cli(monkeypatch, "train", stoppable_recipe) == 2
    assert "do not see each other" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["lora", "adalora"])
def test_two_processes_train_as_one(stoppable_recipe: Path, tiny_bert: Path, tmp_path: Path, driver: str, method: str):
    """Dropout 0, batches of 9 that leave one process fewer examples, and a last batch of 2: equal to rounding.

    AdaLoRA's ranks are weighed by gradients that both have alike, so both take the same ones away.
    """
    base = without_dropout(tiny_bert, tmp_path / "base")
    tree = yaml.safe_load(stoppable_recipe.read_text(encoding="utf-8"))
    tree["adapter"] = {"method": method, "r": 4, "dropout": 0}
    stoppable_recipe.write_text(yaml.safe_dump(tree), encoding="utf-8")
    settings = [f"model.path={base}", "train.max_steps=10", "train.batch_size=9"]
    alone = train(load_config(stoppable_recipe, settings), tmp_path / "alone")
    start = train(load_config(stoppable_recipe, [*settings, "train.learning_rate=1e-30"]), tmp_path / "start")
    done = launch(driver, str(stoppable_recipe), str(tmp_path / "both"), "0", *settings)
    assert done.returncode == 0, done.stderr
    both = RunDirectory(tmp_path / "both")
    ours, theirs, before = trained_tensors(both), trained_tensors(alone), trained_tensors(start)
    for name, tensor in theirs.items():
        # The run that moves nothing loses other ranks, and what is pruned from the start on is empty.
        change = tensor - before[name] if method == "lora" else tensor
        moved = change.abs().max().item() if change.numel() else 0.0
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=FLOAT32_UPDATES * moved, msg=name)
    for left, right in zip(metrics(both), metrics(alone), strict=True):  # written once, not by both
        assert left.pop("split") == right.pop("split")
        assert left == pytest.approx(right, rel=FLOAT32_UPDATES)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_after_the_same_step(stoppable_recipe: Path, tmp_path: Path, driver: str):
    done = launch(driver, str(stoppable_recipe), str(tmp_path / "both"), "5")
    assert done.returncode != 0 and done.stderr.count("lorafy.types.Interrupted: stopped at step 5 of 130") == 2
    assert RunDirectory(tmp_path / "both").named_step("last") == 5


@pytest.mark.slow
def test_the_command_under_a_launcher(stoppable_recipe: Path):
    done = launch("-m", "lorafy", "train", str(stoppable_recipe), "train.max_steps=4", "train.batch_size=9")
    assert done.returncode == 0, done.stderr
    both = RunDirectory(stoppable_recipe.parent / "runs" / "stopped")
    assert json.loads(both.eval_results.read_text(encoding="utf-8"))["verification"]["passed"]
    assert both.report.is_file()
