"""One training from recipe to what lies on disk: opening the run directory, the loop, what is written at the end."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console

from ..config import RunConfig, to_yaml
from ..contracts import Tracker
from ..machine.console import PlainConsole
from ..machine.environment import describe_environment
from ..machine.garbage import kept_from_collection
from ..models.parts import at_their_rates
from ..models.precision import Precision, choose_precision
from ..models.shelf import Shelf
from ..plugins import load_plugin
from ..run_directory import RunDirectory, read_json, write_json, write_text
from ..training.checkpoint import Progress, disk_faults, remove_later_checkpoints
from ..training.display import ProgressDisplay
from ..training.hardware import HardwareSampler
from ..training.loop import Training
from ..training.optim import make_optimizer
from ..training.paths import PlainPath
from ..training.processes import make_accelerator
from ..training.rank_log import RankLog
from ..training.step import Stepper
from ..training.take_path import take_path
from ..types import DataError, Interrupted, Problem
from .announce import announce_run, announce_trained
from .build import BuiltModel, build_model
from .prepare import Prepared, prepare
from .save import summarise, write_trained


def run_training(
    config: RunConfig,
    run: RunDirectory,
    *,
    resume: bool,
    console: Console,
    prepared: Prepared | None = None,
    shelf: Shelf | None = None,
) -> None:
    """Trains in `run`, which is made here or, with `resume`, continued. The caller has named it in the config.

    prepared: of this recipe, where it is there already. shelf: where the base's weights may be already.
    """
    if resume:
        run.refuse_links()
    accelerator = make_accelerator()
    prepared = prepare(config) if prepared is None else replace(prepared, config=config)
    with kept_from_collection():
        _train_prepared(config, run, prepared, accelerator, console, resume, shelf)


def _train_prepared(
    config: RunConfig,
    run: RunDirectory,
    prepared: Prepared,
    accelerator: Accelerator,
    console: Console,
    resume: bool,
    shelf: Shelf | None,
) -> None:
    quiet = console if accelerator.is_main_process else PlainConsole(quiet=True)
    if resume:
        _require_same_data(run, prepared)
    precision = choose_precision(config.model.dtype, accelerator.device)
    torch.set_num_threads(_saved_threads(run) if resume else torch.get_num_threads())
    built = build_model(prepared, shelf)
    announce_run(quiet, run, prepared, built, precision)
    with disk_faults(run), ExitStack() as stack:
        if accelerator.is_main_process:
            if not resume:
                run.create()
            stack.enter_context(run.lock())
            if not resume:
                _write_start(run, prepared, built)
        accelerator.wait_for_everyone()
        built.hold_frozen(precision.dtype)
        built.model.to(accelerator.device)
        progress = _Sitting(run, prepared, built, accelerator, precision, quiet).train(resume)
        built.model.eval()
        built.method.finish(built.model)
        task = prepared.task.finish(built.model, prepared.features.get("validation"), precision)
        prepared = replace(prepared, task=task)
        if accelerator.is_main_process:
            write_trained(run, prepared, built, precision)
            summary = summarise(config, run, prepared, built, progress, precision)
            write_json(run.summary, summary)
            announce_trained(console, summary, prepared.task.kind.view)
        accelerator.wait_for_everyone()


@dataclass(frozen=True)
class _Sitting:
    """One process's part of the steps from here to the end, or to a signal."""

    run: RunDirectory
    prepared: Prepared
    built: BuiltModel
    accelerator: Accelerator
    precision: Precision
    console: Console

    def train(self, resume: bool) -> Progress:
        """Leaves the best weights in the model. Raises Interrupted with what to type next."""
        run, accelerator = self.run, self.accelerator
        step = run.named_step("last") if resume else None
        stepper, is_fast = self._stepper(step)
        with ExitStack() as stack:
            trackers: list[Tracker] = []
            if accelerator.is_main_process:
                if resume:
                    remove_later_checkpoints(run, step or 0)
                trackers = self._trackers(step, stack)
            display = self._display(step)
            training = self._training(stepper, is_fast, trackers, display)
            training.ranks = self._rank_log(step, stack)
            if step is not None:
                training.resume(step)
                self.console.print(f"Resumed after step {step} of {training.num_steps}.")
            if accelerator.is_main_process:
                device, seconds = self.precision.device, training.progress.seconds
                gpu = device.index if device.type == "cuda" else None
                stack.enter_context(HardwareSampler(run.hardware, start_seconds=seconds, gpu_index=gpu))
            stack.enter_context(display)
            try:
                return training.train()
            except Interrupted as stop:
                message = f"{stop}. Continue with: lorafy train {run.path} --resume"
                raise Interrupted(stop.signal_number, message) from None
            except DataError as error:
                fix = f"put it back as it was; the checkpoint is written: lorafy train {run.path} --resume"
                raise DataError(replace(problem, fix=fix) for problem in error.problems) from error

    def _stepper(self, step: int | None) -> tuple[Stepper, bool]:
        """The stepper that computes each step; True where it takes the fast path."""
        prepared, model, method = self.prepared, self.built.model, self.built.method
        section, accelerator = prepared.config.train, self.accelerator
        scaler = torch.amp.GradScaler(accelerator.device.type, enabled=self.precision.scales_loss)
        wrapped = accelerator.prepare_model(model) if accelerator.num_processes > 1 else model
        # Behind that, which may give parameters other memory.
        groups = at_their_rates(method.parameter_groups(model, prepared.config.adapter), model, self.built.parts)
        optimizer = make_optimizer(groups, section)
        path, is_fast = take_path(
            PlainPath(wrapped, prepared.task, self.precision, section.micro_batch_size),
            model,
            section,
            prepared.features["train"],
            prepared.plan,
            self.console,
            fast_wanted=section.kernels == "auto" and _took_fast_path(self.run, step),
            num_processes=accelerator.num_processes,
            resumed=bool(step),
        )
        stepper = Stepper(
            model=wrapped,
            path=path,
            optimizer=optimizer,
            scaler=scaler,
            accelerator=accelerator,
            precision=self.precision,
            max_grad_norm=section.max_grad_norm,
            after_update=lambda number: method.after_update(model, number),
            regularise=lambda: method.regularise(model),
        )
        return stepper, is_fast

    def _trackers(self, step: int | None, stack: ExitStack) -> list[Tracker]:
        names = dict.fromkeys(["jsonl", *self.prepared.config.trackers])
        trackers = [load_plugin("trackers", name).open_tracker(self.run, step) for name in names]
        for tracker in trackers:
            stack.callback(tracker.close)
        return trackers

    def _rank_log(self, step: int | None, stack: ExitStack) -> RankLog | None:
        """Where the ranks of a method that changes them are logged; its first line is the start."""
        ranks = self.built.method.ranks(self.built.model)
        if ranks is None or not self.accelerator.is_main_process:
            return None
        log = RankLog(self.run, step)
        stack.callback(log.close)
        if step is None:
            log.log(0, ranks)
        return log

    def _display(self, step: int | None) -> ProgressDisplay:
        task = self.prepared.task
        score, logged = task.objective.score, task.kind.view.logged
        return ProgressDisplay(self.console, self.prepared.num_steps, step or 0, score, logged)

    def _training(self, stepper: Stepper, is_fast: bool, trackers: list[Tracker], display: ProgressDisplay) -> Training:
        prepared, config = self.prepared, self.prepared.config
        return Training(
            run=self.run,
            config=config.train,
            seed=config.run.seed,
            peak_learning_rate=prepared.learning_rate,
            task=prepared.task,
            method=self.built.method,
            stepper=stepper,
            features=prepared.features["train"],
            plan=prepared.plan,
            num_steps=prepared.num_steps,
            validate=self._validate(),
            trackers=trackers,
            display=display,
            progress=Progress(num_threads=torch.get_num_threads()),
            is_fast=is_fast,
        )

    def _validate(self) -> Any:
        features = self.prepared.features.get("validation")
        if not features:
            return None
        return lambda: self.prepared.task.measure(self.built.model, features, self.precision)


def _write_start(run: RunDirectory, prepared: Prepared, built: BuiltModel) -> None:
    write_json(run.environment, describe_environment())
    write_json(run.preflight, prepared.report(built.findings))
    write_text(run.config, to_yaml(prepared.config))


def _require_same_data(run: RunDirectory, prepared: Prepared) -> None:
    recorded, found = read_json(run.preflight)["splits"], prepared.corpus.summary()
    names = sorted(set(recorded) | set(found))
    changed = [name for name in names if recorded.get(name) != found.get(name)]
    if changed:
        message = f"the data changed since this run began: its {', '.join(changed)} split is another one"
        raise DataError(Problem(str(run.path), message, "put the data back, or start a new run"))


def _took_fast_path(run: RunDirectory, step: int | None) -> bool:
    """Whether the run took the fast path so far: a resumed run keeps its path, the other one rounds otherwise. True at
    a run's start."""
    return not step or read_json(run.checkpoint(step) / "state.json")["fast_steps"] > 0


def _saved_threads(run: RunDirectory) -> int:
    """The thread count of the checkpoint: sums in another order are other bits."""
    step = run.named_step("last")
    if step is None:
        return torch.get_num_threads()
    return read_json(run.checkpoint(step) / "state.json")["num_threads"]
