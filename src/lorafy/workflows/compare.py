"""Methods side by side: the same seeds, data and evaluation, each training in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from ..config import RunConfig, config_tree, parse_config
from ..evaluation.seeds import mean_difference, mean_interval
from ..metrics import Metric
from ..metrics.numbers import duration
from ..run_directory import RunDirectory, next_run_name, read_json, write_json, write_text
from ..tasks import load_kind
from ..types import ConfigError, Problem, RunError
from .candidates import Candidate, default_candidates, named_candidates
from .draw import draw_report
from .fresh_process import run_verb
from .prepare import Prepared, prepare
from .trust import GIVEN, refuse_own_word


@dataclass(frozen=True)
class Comparison:
    """What is trained, by which seeds, and the folder that holds all of it."""

    prepared: Prepared
    candidates: Sequence[Candidate]
    seeds: Sequence[int]
    directory: RunDirectory

    @property
    def runs(self) -> list[tuple[Candidate, int]]:
        """Every run, in order: all methods with a seed, then with the next, so that what was cut off still compares."""
        return [(candidate, seed) for seed in self.seeds for candidate in self.candidates]

    def run(self, candidate: Candidate, seed: int) -> RunDirectory:
        """The directory of one run."""
        name = candidate.name if len(self.seeds) == 1 else f"{candidate.name}-{seed}"
        return RunDirectory(self.directory.path / name.replace("+", "plus"))

    def recipe(self, candidate: Candidate, seed: int) -> Path:
        """Writes the recipe of one run."""
        run, prepared = self.run(candidate, seed), self.prepared
        tree = candidate.tree(prepared.config, prepared.learning_rate, seed, run.path.name, self.directory.path)
        path = self.directory.path / f"{run.path.name}.yaml"
        write_text(path, yaml.safe_dump(tree, allow_unicode=True, sort_keys=False))
        return path


def new_comparison(config: RunConfig, stem: str, methods: Sequence[str] | None, num_seeds: int) -> Comparison:
    """The comparison of this recipe's data. methods: names; None: those that ask for it. Seeds count up from the
    recipe's. Raises every mistake of recipe, data and methods before anything is written."""
    prepared = prepare(config)
    kind = prepared.task.kind
    candidates = default_candidates(kind, config) if methods is None else named_candidates(kind, methods)
    seeds = range(config.run.seed, config.run.seed + num_seeds)
    output_dir = Path(config.run.output_dir).resolve()
    directory = RunDirectory(output_dir / (config.run.name or next_run_name(output_dir, f"{stem}-compare")))
    comparison = Comparison(prepared, candidates, seeds, directory)
    _refuse_unfit(comparison)
    directory.create()
    plan = {"config": config_tree(config), "methods": [each.name for each in candidates], "seeds": list(seeds)}
    write_json(directory.comparison, plan)
    return comparison


def comparison_to_resume(path: Path, overrides: Sequence[str]) -> Comparison:
    """The comparison that began in this folder. overrides: GIVEN at most."""
    directory = RunDirectory(path)
    if not directory.comparison.is_file():
        message = "no comparison began in this folder"
        raise RunError(Problem(str(path), message, "give the folder of one, or leave --resume out"))
    others = [word for word in overrides if word != GIVEN]
    if others:
        problems = [Problem(word, "no effect with --resume: it goes on as it began", "remove it") for word in others]
        raise ConfigError(problems)
    plan = read_json(directory.comparison)
    config = parse_config(plan["config"], str(directory.comparison))
    refuse_own_word(path, config, overrides)
    prepared = prepare(config)
    candidates = named_candidates(prepared.task.kind, plan["methods"])
    return Comparison(prepared, candidates, plan["seeds"], directory)


def _refuse_unfit(comparison: Comparison) -> None:
    """Raises ConfigError where a method cannot take what the recipe says."""
    problems: list[Problem] = []
    for candidate in comparison.candidates:
        prepared = comparison.prepared
        tree = candidate.tree(prepared.config, prepared.learning_rate, comparison.seeds[0], "one", Path())
        try:
            parse_config(tree, f"the recipe for {candidate.name}")
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)


def run_comparison(comparison: Comparison, console: Console) -> tuple[list[dict[str, Any]], list[str]]:
    """Trains what is not trained yet. Returns a row for each method, as in compare_results.json, with a row of the base
    before them; and which runs failed.

    A process each, because peak memory is a property of a process. A run that fails stops no other one.
    """
    directory = comparison.directory
    done: list[tuple[Candidate, int, dict[str, Any]]] = []
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    watch = _Watch(console, len(comparison.runs))
    for candidate, seed in comparison.runs:
        run = comparison.run(candidate, seed)
        with watch.over(candidate.title, seed if len(comparison.seeds) > 1 else None):
            try:
                done.append((candidate, seed, _trained(comparison, candidate, seed, quiet=console.quiet)))
            except RunError as error:
                failed.append(run.path.name)
                console.print(Text(str(error), "red"))
                continue
        rows = _rows(comparison, done)
        write_json(directory.compare_results, {"rows": rows})
        draw_report(directory, console)
    return rows, failed


def _trained(comparison: Comparison, candidate: Candidate, seed: int, *, quiet: bool) -> dict[str, Any]:
    """What `lorafy train` says of a run: of one that is finished already, of one that is taken up again, or new."""
    recipe, run = comparison.recipe(candidate, seed), comparison.run(candidate, seed)
    if run.is_finished and run.eval_results.is_file():
        return {"run": str(run.path), "summary": read_json(run.summary), "results": read_json(run.eval_results)}
    if run.is_run:
        trusted = [GIVEN] if comparison.prepared.config.model.trust_remote_code else []
        return run_verb("train", run.path, "the training", ["--resume", *trusted], quiet=quiet)
    return run_verb("train", recipe, "the training", quiet=quiet)


class _Watch:
    """Says which run begins, and how long the rest will take."""

    def __init__(self, console: Console, total: int):
        self.console, self.total = console, total
        self.number, self.seconds = 0, dict[str, list[float]]()

    @contextmanager
    def over(self, title: str, seed: int | None) -> Iterator[None]:
        """Around one run."""
        self.number += 1
        where = f"({self.number} of {self.total}{'' if seed is None else f', seed {seed}'}{self._left()})"
        self.console.print(Text.assemble("\n", (title, "bold"), f" {where}"))
        start = time.monotonic()
        yield
        self.seconds.setdefault(title, []).append(time.monotonic() - start)

    def _left(self) -> str:
        spent = [value for values in self.seconds.values() for value in values]
        return f", about {duration(sum(spent) / len(spent) * (self.total - self.number + 1))} left" if spent else ""


def _rows(comparison: Comparison, done: Sequence[tuple[Candidate, int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """compare_results.json's: where a row is of several seeds, with means, and how it differs from the recipe's own
    method (where that is not among them: from the first one)."""
    view = comparison.prepared.task.kind.view
    every = {
        candidate.name: {
            seed: _row(candidate, seed, trained, "metrics") for which, seed, trained in done if which is candidate
        }
        for candidate in comparison.candidates
    }
    runs = {name: of_seeds for name, of_seeds in every.items() if of_seeds}
    own = comparison.prepared.config.adapter.method
    against = own if own in runs else next(iter(runs))
    rows = []
    for name, of_seeds in runs.items():
        row = over_seeds(view.compared, of_seeds)
        if name != against and (found := differences(view.compared, of_seeds, runs[against])):
            title = next(iter(runs[against].values()))["title"]
            row |= {"against": title, "difference": found}
        rows.append(row)
    if view.has_base:
        base = {seed: _base_row(which, seed, trained) for which, seed, trained in done if which is done[0][0]}
        rows.insert(0, over_seeds(view.compared, base))
    return rows


def over_seeds(metrics: Sequence[Metric], rows: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """One row for those of several seeds: means with their intervals, the most memory, the mean time."""
    first = next(iter(rows.values()))
    if len(rows) == 1:
        return first
    mean: dict[str, Any] = {"seeds": list(rows), "runs": list(rows.values())}
    for metric in metrics:
        values = [value for row in rows.values() if (value := metric.value(row)) is not None]
        if not values:
            continue
        mean[metric.key], interval = mean_interval(values)
        least, most = metric.range
        mean[f"{metric.key}_interval"] = interval and [max(interval[0], least), min(interval[1], most)]
    if first["seconds"] is not None:
        mean["seconds"] = mean_interval([row["seconds"] for row in rows.values()])[0]
        mean["peak_memory_bytes"] = max(row["peak_memory_bytes"] for row in rows.values())
        mean["verified"] = all(row["verified"] for row in rows.values())
    return {key: value for key, value in first.items() if key not in ("seed", "run")} | mean


def differences(
    metrics: Sequence[Metric], rows: Mapping[int, dict[str, Any]], first: Mapping[int, dict[str, Any]]
) -> dict[str, Any]:
    """How much greater each metric is than the first method's, seed by seed, with its interval."""
    found: dict[str, Any] = {}
    for metric in metrics:
        here, there = ({seed: metric.value(row) for seed, row in of.items()} for of in (rows, first))
        known = {seed: value for seed, value in here.items() if value is not None}
        others = {seed: value for seed, value in there.items() if value is not None}
        if difference := mean_difference(known, others):
            found[metric.key], found[f"{metric.key}_interval"] = difference
    return found


def _row(candidate: Candidate, seed: int, trained: dict[str, Any], voice: str) -> dict[str, Any]:
    """One run in compare_results.json. voice: as of `View.comparison_row`."""
    summary, results = trained["summary"], trained["results"]
    return {
        "method": candidate.name,
        "title": candidate.title,
        "task": results["task"],
        **load_kind(results["task"]).view.comparison_row(results, voice),
        "split": results["split"],
        "num_examples": results["num_examples"],
        "trainable_parameters": summary["trainable_parameters"],
        "total_parameters": summary["total_parameters"],
        "peak_memory_bytes": summary["peak_memory_bytes"],
        "seconds": summary["seconds"],
        "bytes_on_disk": summary["bytes_on_disk"],
        "learning_rate": summary["learning_rate"],
        "verified": results["verification"]["passed"],
        "seed": seed,
        "run": trained["run"],
    }


def _base_row(candidate: Candidate, seed: int, trained: dict[str, Any]) -> dict[str, Any]:
    """The untrained model, as a run of some method measured it: it cost nothing."""
    nothing = ("peak_memory_bytes", "seconds", "bytes_on_disk", "learning_rate", "verified")
    named = {"method": "base", "title": "base, untrained", "trainable_parameters": 0}
    return _row(candidate, seed, trained, "base") | named | dict.fromkeys(nothing)
