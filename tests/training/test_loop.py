"""When the loop validates, saves, stops, and which weights it leaves."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import STEPS_PER_EPOCH, Recorder, make_training

from lorafy.run_directory import RunDirectory, read_json
from lorafy.training.checkpoint import remove_later_checkpoints
from lorafy.types import NonFiniteLoss


def test_validates_every_so_many_steps_and_at_the_end(tmp_path: Path):
    recorder = Recorder()
    make_training(tmp_path, 11, [0.1, 0.2, 0.3], recorder, evaluate_every=5).train()
    assert [step for step, _ in recorder.validations] == [5, 10, 11]


def test_validates_each_epoch(tmp_path: Path):
    recorder = Recorder()
    make_training(tmp_path, 12, [0.1, 0.2, 0.3], recorder, evaluate_every="epoch").train()
    assert [step for step, _ in recorder.validations] == [STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH, 3 * STEPS_PER_EPOCH]


def test_null_never_validates_and_leaves_the_last_weights(tmp_path: Path):
    recorder = Recorder()
    training = make_training(tmp_path, 6, [0.9] * 9, recorder, evaluate_every=None)
    progress = training.train()
    assert recorder.validations == [] and progress.best_step is None
    assert not (tmp_path / "checkpoints" / "best.json").exists()
    assert_weights_of_step(training, 6)


@pytest.mark.parametrize(("save_every", "steps"), [(5, [5, 10, 11]), ("epoch", [4, 8, 11]), (None, [11])])
def test_saves_when_due_and_at_the_end(tmp_path: Path, save_every: int | str | None, steps: list[int]):
    make_training(tmp_path, 11, save_every=save_every, keep_checkpoints=9).train()
    run = RunDirectory(tmp_path)
    assert run.saved_steps() == steps
    assert run.named_step("last") == 11


def test_keeps_the_latest_and_the_best_and_ends_with_the_best_weights(tmp_path: Path):
    recorder = Recorder()
    accuracies = [0.5, 0.9, 0.6, 0.7, 0.8, 0.6]
    training = make_training(tmp_path, 12, accuracies, recorder, evaluate_every=2, save_every=2, keep_checkpoints=2)
    progress = training.train()
    run = RunDirectory(tmp_path)
    assert run.saved_steps() == [4, 10, 12]
    assert (run.named_step("best"), run.named_step("last")) == (4, 12)
    assert read_json(run.checkpoints / "best.json") == {"step": 4, "accuracy": 0.9, "loss": 1.0}
    assert (progress.best_step, progress.step) == (4, 12)
    assert [is_best for _, is_best in recorder.validations] == [True, True, False, False, False, False]
    assert_weights_of_step(training, 4)


def test_a_better_validation_is_saved_even_where_no_save_is_due(tmp_path: Path):
    make_training(tmp_path, 8, [0.1, 0.9, 0.2, 0.3], evaluate_every=2, save_every=None).train()
    assert RunDirectory(tmp_path).saved_steps() == [2, 4, 8]


def test_stops_early_after_so_many_validations_without_a_gain(tmp_path: Path):
    recorder = Recorder()
    training = make_training(
        tmp_path, 12, [0.5, 0.7, 0.7, 0.6, 0.9], recorder, evaluate_every=2, save_every=None, early_stopping=2
    )
    progress = training.train()
    assert progress.stopped_early and progress.step == 8
    assert RunDirectory(tmp_path).named_step("last") == 8
    assert_weights_of_step(training, 4)


def test_a_tie_in_accuracy_is_decided_by_the_loss(tmp_path: Path):
    training = make_training(tmp_path, 3, [], evaluate_every=1)
    findings = iter([(0.5, 1.0), (0.5, 0.9), (0.5, 0.95)])
    training.validate = lambda: dict(zip(("accuracy", "loss"), next(findings), strict=True))
    assert training.train().best_step == 2


def test_a_resumed_early_stop_stays_stopped(tmp_path: Path):
    settings: dict[str, Any] = {"evaluate_every": 2, "early_stopping": 1}
    make_training(tmp_path, 12, [0.5, 0.4], **settings).train()
    again = make_training(tmp_path, 12, [1.0] * 9, **settings)
    again.resume(4)
    progress = again.train()
    assert progress.stopped_early and progress.step == 4
    assert_weights_of_step(again, 2)


def test_a_logged_line_is_the_mean_over_the_targets_since_the_last(tmp_path: Path):
    recorder = Recorder()
    make_training(tmp_path, 8, None, recorder, log_every=3).train()
    assert [record["step"] for record in recorder.records] == [3, 6, 8]
    sizes = [stats.num_examples for stats in recorder.steps]
    assert sizes == [3, 3, 3, 2, 3, 3, 3, 2], "the last step of an epoch is smaller, and counts for less"
    for record, window in zip(recorder.records, ((0, 3), (3, 6), (6, 8)), strict=True):
        steps = recorder.steps[slice(*window)]
        targets = sum(stats.num_examples for stats in steps)
        assert record["loss"] == pytest.approx(sum(s.loss * s.num_examples for s in steps) / targets)
        assert record["accuracy"] == pytest.approx(sum(s.score * s.num_examples for s in steps) / targets)
        assert record["learning_rate"] == steps[-1].learning_rate
        assert record["epoch"] == steps[-1].step / STEPS_PER_EPOCH


def test_what_a_kill_left_behind_is_removed(tmp_path: Path):
    """A kill between a checkpoint and last.json leaves a later one, which would push the next ones out."""
    make_training(tmp_path, 8, save_every=2, keep_checkpoints=9).train()
    run = RunDirectory(tmp_path)
    run.name_step("last", 4)
    half = run.checkpoints / ".step-000010-abcdef"
    half.mkdir()
    remove_later_checkpoints(run, 4)
    assert run.saved_steps() == [2, 4] and not half.exists()
    again = make_training(tmp_path, 6, save_every=2, keep_checkpoints=1)
    again.resume(4)
    again.train()
    assert (run.saved_steps(), run.named_step("last")) == ([6], 6)


def test_an_example_that_breaks_the_loss_is_named_by_its_row(tmp_path: Path):
    training = make_training(tmp_path, 4)
    training.features = [dataclasses.replace(f, row=100 + i) for i, f in enumerate(training.features)]
    with torch.no_grad():
        training.stepper.model.embedding.weight[training.features[7].input_ids[0]] = float("nan")
    broken = {100 + i for i, f in enumerate(training.features) if training.features[7].input_ids[0] in f.input_ids}
    with pytest.raises(NonFiniteLoss) as caught:
        training.train()
    named = re.search(r"training rows \[([\d, ]+)\]", str(caught.value))
    assert named and broken & {int(row) for row in named.group(1).split(",")}


def assert_weights_of_step(training, step: int) -> None:
    saved = load_file(training.run.checkpoint(step) / "trainable.safetensors")
    for name, parameter in training.stepper.model.named_parameters():
        assert torch.equal(parameter, saved[name]), name
