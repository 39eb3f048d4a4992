"""Recipes over one base, trained in turn: all are checked before anything is trained, the base is loaded once."""

from __future__ import annotations

import gc
import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ..config import RunConfig
from ..models.shelf import Shelf
from ..run_directory import RunDirectory
from ..types import ConfigError, Problem, UserError
from .adapters import OF_THE_BASE
from .build import build_model
from .prepare import Prepared, prepare
from .runs import new_run, with_run
from .train import run_training

THE_SAME = (*OF_THE_BASE, "trust_remote_code")
"""Settings of the model section, which have to be the same."""


@dataclass(frozen=True)
class Planned:
    """A recipe of the list: as it was named, and the stem that numbers its runs."""

    name: str
    config: RunConfig
    stem: str


@dataclass
class Progress:
    """What became of a list of recipes so far. overrides: as they were given."""

    plans: Sequence[Planned]
    overrides: Sequence[str]
    finished: list[RunDirectory]
    current: RunDirectory | None = None

    def say(self, console: Console) -> None:
        """Prints what is finished, and what to type for the rest."""
        if self.finished:
            console.print(Text(f"Finished: {', '.join(str(run.path) for run in self.finished)}."))
        left = [plan.name for plan in self.plans[len(self.finished) :]]
        run = self.current
        if run is not None and run.is_run and (run.named_step("last") is not None or run.is_finished):
            console.print(Text(f"Stopped: {left.pop(0)}. Go on with it: lorafy train {run.path} --resume"))
        if left:
            words = shlex.join(["lorafy", "train", *left, *self.overrides])
            console.print(Text(f"Still to train: {words}"))


def check_all(plans: Sequence[Planned], shelf: Shelf) -> list[Prepared]:
    """Data and model of every recipe, up to the first step. Raises every problem with its recipe's name."""
    problems = [*_twice(plans), *_other_bases(plans)]
    found = [_check(plan, shelf, problems) for plan in plans]
    if problems:
        raise UserError(problems)
    return [prepared for prepared in found if prepared is not None]


def _check(plan: Planned, shelf: Shelf, problems: list[Problem]) -> Prepared | None:
    prepared = None
    try:
        new_run(plan.config, plan.stem)
    except UserError as error:
        problems += named(plan.name, error)
    try:
        prepared = prepare(plan.config)
        build_model(prepared, shelf)
    except UserError as error:
        problems += named(plan.name, error)
    shelf.drop_changed()
    return prepared


def named(recipe: str, error: UserError) -> list[Problem]:
    """The error's problems, each with the recipe's name."""
    of_file = [problem.where.startswith(recipe) for problem in error.problems]
    return [
        problem if own else replace(problem, where=f"{recipe}: {problem.where}")
        for problem, own in zip(error.problems, of_file, strict=True)
    ]


def _twice(plans: Sequence[Planned]) -> list[Problem]:
    """Recipes that stand there more than once, and runs that would lie in one folder."""
    problems, seen, folders = [], set[Path](), dict[Path, str]()
    for plan in plans:
        place = Path(plan.name).resolve()
        if place in seen:
            problems.append(Problem(plan.name, "stands there more than once", "name it once"))
            continue
        seen.add(place)
        if plan.config.run.name is None:
            continue
        folder = (Path(plan.config.run.output_dir) / plan.config.run.name).resolve()
        if folder in folders:
            message = f"{folders[folder]} and {plan.name} would train in the same folder, {folder}"
            problems.append(Problem("run.name", message, "give each recipe a name of its own, or none"))
        folders.setdefault(folder, plan.name)
    return problems


def _other_bases(plans: Sequence[Planned]) -> list[Problem]:
    first, *others = plans
    problems = []
    for plan in others:
        for key in THE_SAME:
            here, there = getattr(plan.config.model, key), getattr(first.config.model, key)
            if here != there:
                message = f"{here}, but {first.name} says {there}: recipes of one list are trained on one base"
                problems.append(Problem(f"{plan.name}: model.{key}", message, "train it by a command of its own"))
    return problems


def train_in_turn(
    plans: Sequence[Planned],
    overrides: Sequence[str],
    console: Console,
    finish: Callable[[RunDirectory, RunConfig], None],
) -> list[RunDirectory]:
    """Trains all of them, each as it would be trained alone, bit for bit. finish: what follows a training.

    Where one ends early, prints what is done and what to type next, and raises on.
    """
    shelf = Shelf()
    all_prepared = check_all(plans, shelf)
    base = plans[0].config.model
    often = "loaded once" if base.quantise is None else "quantised anew for each"
    console.print(Text(f"{len(plans)} recipes over one base, {base.path} ({often}).", "bold"))
    progress = Progress(plans, overrides, [])
    for number, (plan, prepared) in enumerate(zip(plans, all_prepared, strict=True), start=1):
        try:
            gc.collect()  # the model before
            run = progress.current = new_run(plan.config, plan.stem)
            console.print(Text.assemble("\n", (plan.name, "bold"), f" ({number} of {len(plans)}) -> {run.path}"))
            config = with_run(plan.config, run.path)
            run_training(config, run, resume=False, console=console, prepared=prepared, shelf=shelf)
            shelf.drop_changed()
            finish(run, config)
        except BaseException:
            with suppress(BrokenPipeError):
                progress.say(console)
            raise
        progress.finished.append(run)
        progress.current = None
    return progress.finished


def require_several(names: Sequence[str], *, resume: bool) -> None:
    """Raises ConfigError for what cannot be said of several recipes."""
    if resume:
        message = f"continues one run, and these are {len(names)} recipes"
        raise ConfigError(Problem("--resume", message, "name the run that stopped: lorafy train RUN --resume"))
