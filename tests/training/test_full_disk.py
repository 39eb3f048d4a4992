"""A disk that is full while a checkpoint is written: refused clearly, and nothing that was saved is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorafy.run_directory import RunDirectory
from lorafy.training.display import ProgressDisplay
from lorafy.types import RunError
from tiny_models import make_config
from trained_runs import assert_same_run, train

SIZE_BYTES = 8 * 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux may mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(disk)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        pytest.skip(f"mount is not allowed here: {done.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill_after(monkeypatch: pytest.MonkeyPatch, disk: Path, step: int, left_bytes: int = 0) -> None:
    """From this step on the disk has `left_bytes` left."""
    shown = ProgressDisplay.on_step

    def on_step(display, stats):
        shown(display, stats)
        if stats.step == step:
            usage = os.statvfs(disk)
            (disk / "filler").write_bytes(bytes(max(0, usage.f_bavail * usage.f_frsize - left_bytes)))

    monkeypatch.setattr(ProgressDisplay, "on_step", on_step)


@pytest.mark.parametrize("left_bytes", [0, 8 * 4096, 64 * 4096])
@pytest.mark.parametrize("step", [4, 10])
def test_the_last_checkpoint_survives(
    small_disk: Path, tmp_path: Path, monkeypatch, tiny_bert: Path, sms_csv: Path, left_bytes: int, step: int
):
    train_settings = {"max_steps": 10, "batch_size": 8, "save_every": 3, "log_every": 2, "evaluate_every": None}
    config = make_config(tiny_bert, sms_csv, adapter={"method": "full"}, train=train_settings)
    path = small_disk / "run"
    with monkeypatch.context() as patch:
        fill_after(patch, small_disk, step, left_bytes)
        with pytest.raises(RunError) as caught:
            train(config, path)
    message = str(caught.value)
    assert "No space left" in message and "--resume" in message, message
    run = RunDirectory(path)
    last = {4: 3, 10: 9}[step]
    assert run.named_step("last") == last and run.saved_steps()[-1] == last
    assert {file.name for file in run.checkpoint(last).iterdir()} == {
        "optimizer.pt",
        "state.json",
        "trainable.safetensors",
    }
    assert run.trained is None and not run.summary.exists()
    halves = [file for file in path.rglob(".*") if file.name != ".lock"]
    assert not halves, halves

    (small_disk / "filler").unlink()
    assert_same_run(train(config, path, resume=True), train(config, tmp_path / "whole"))


def test_a_disk_that_fills_while_the_result_is_written(small_disk, tmp_path, monkeypatch, tiny_bert, sms_csv):
    """The last checkpoint is saved and the adapter no longer fits: --resume writes it."""
    from lorafy.workflows import train as training_run

    config = make_config(tiny_bert, sms_csv, train={"max_steps": 2, "batch_size": 8})
    path, write = small_disk / "run", training_run.write_trained

    def write_on_a_full_disk(*arguments):
        usage = os.statvfs(small_disk)
        (small_disk / "filler").write_bytes(bytes(usage.f_bavail * usage.f_frsize))
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "write_trained", write_on_a_full_disk)
        with pytest.raises(RunError, match="No space left"):
            train(config, path)
    assert RunDirectory(path).trained is None
    (small_disk / "filler").unlink()
    assert_same_run(train(config, path, resume=True), train(config, tmp_path / "whole"))
