"""What notebooks call, and what every verb is built on: train, evaluate, verify, load, merge."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from rich.console import Console

from . import assemble
from .adapters import files
from .assemble import Prepared
from .config import RunConfig, load_config, parse_config
from .config.flat import keys_of, override_name
from .config.load import apply_overrides, normalise_overrides, resolve_paths
from .config.schema import DEFAULT_SPLIT
from .data.saved import save_encoded
from .evaluation import verify as verification
from .inference.classify import Prediction, classify
from .models.precision import Precision
from .report.html import write_report
from .report.plots import draw_plots
from .run_directory import (
    RunDirectory,
    next_run_name,
    numbered_runs,
    read_json,
    read_jsonl,
    write_atomically,
    write_json,
)
from .scoring import score
from .scoring import verify as verify_trained
from .talking import LanguageModel
from .tasks.classification import Classification
from .trained import Trained, find_trained, load_trained, probe_inputs
from .training.checkpoint import disk_faults
from .training_run import (
    config_differences,
    evaluate_in_fresh_process,
    join_processes,
    run_training,
    with_run,
)
from .types import ConfigError, ModelError, Problem, RunError

Recipe = RunConfig | Mapping[str, Any] | Path | str


@dataclass(frozen=True)
class Run:
    """A finished run. Its files are the truth; the properties read them."""

    path: Path

    @property
    def directory(self) -> RunDirectory:
        return RunDirectory(self.path)

    @cached_property
    def summary(self) -> dict[str, Any]:
        return read_json(self.directory.summary)

    @cached_property
    def results(self) -> dict[str, Any]:
        """eval_results.json: metrics, verification, worst mistakes."""
        return read_json(self.directory.eval_results)

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """metrics.jsonl: a record for each logged step and each validation."""
        return read_jsonl(self.directory.metrics)


class Classifier:
    """A trained model, merged and ready: `load("runs/demo-1").classify(["a text"])`."""

    def __init__(self, trained: Trained):
        trained.merge()
        trained.place()
        self._trained = trained

    @property
    def labels(self) -> list[str]:
        return list(self._task.label_names)

    def classify(self, texts: Sequence[str | tuple[str, str]]) -> list[Prediction]:
        """One prediction a text; a pair of texts is a tuple."""
        return classify(self._trained.model, self._task, texts, self._trained.precision)

    @property
    def _task(self) -> Classification:
        assert isinstance(self._trained.task, Classification), "only a classifier classifies"
        return self._trained.task


def load_recipe(recipe: Recipe, overrides: Sequence[str] = ()) -> tuple[RunConfig, str]:
    """The config, and the stem that numbers its runs. A mapping's paths are relative to the current folder."""
    overrides = normalise_overrides(overrides)
    if isinstance(recipe, RunConfig):
        return recipe, "run"
    if isinstance(recipe, Mapping):
        tree = json.loads(json.dumps(recipe, default=str))  # a copy; paths become text
        resolve_paths(tree, Path.cwd())
        return parse_config(tree, "the recipe", apply_overrides(tree, overrides), overrides), "run"
    path = Path(recipe)
    if path.is_dir():
        run = RunDirectory(path)
        if not run.is_run:
            raise ConfigError(Problem(str(path), "this folder holds no run", "give a recipe (a .yaml file)"))
        path = run.config
    config = load_config(path, overrides)
    if path.name == "config.yaml" and RunDirectory(path.parent).is_run:
        # The recipe of a run: its repetition gets the next number, and stands beside it.
        stem = path.resolve().parent.name.rpartition("-")[0] or path.resolve().parent.name
        if not _sets("run.name", overrides):
            config = config.model_copy(update={"run": config.run.model_copy(update={"name": None})})
        return config, stem
    return config, path.stem


def train(
    recipe: Recipe, overrides: Sequence[str] = (), *, resume: bool = False, console: Console | None = None
) -> Run:
    """Trains, then evaluates and verifies from disk in a fresh process, then draws and reports.

    `console` shows progress (stderr by default; `Console(quiet=True)` for none). Raises UserError for mistakes,
    all of them at once, before anything is written; Interrupted after a signal, with a checkpoint written.
    """
    console = console or Console(stderr=True)
    join_processes()
    config, stem = load_recipe(recipe, overrides)
    run = _run_to_resume(recipe, config, stem) if resume else _new_run(config, stem)
    if resume and run.is_finished:
        console.print(f"{run.path} is finished: there is nothing to resume.")
    else:
        run_training(with_run(config, run.path), run, resume=resume, console=console)
    if is_main_process() and not run.eval_results.is_file():
        console.print("Evaluating and verifying from disk, in a fresh process ...")
        evaluate_in_fresh_process(run)
    PartialState().wait_for_everyone()
    return Run(run.path)


def prepare(recipe: Recipe, overrides: Sequence[str] = (), output: Path | None = None) -> Prepared:
    """Data, features and pre-flight; with `output` also a folder for `datasets.load_from_disk`.

    Its splits hold text (and text_pair), input_ids, attention_mask (and token_type_ids of pairs) and label, so that
    the folder can also be a recipe's `data.train`.
    """
    if output is not None and output.exists():
        raise RunError(Problem(str(output), "is there already", "choose another --output"))
    config, _ = load_recipe(recipe, overrides)
    prepared = assemble.prepare(config)
    if output is not None:
        write_atomically(output, lambda target: save_encoded(prepared.corpus, prepared.features, target))
    return prepared


def report(run: RunDirectory, console: Console) -> None:
    """Draws plots/ and writes report.html from the run's files."""
    drawn = draw_plots(run)
    for note in drawn.notes:
        console.print(note, style="yellow")
    write_report(run, drawn)


def evaluate(model: Path | str, overrides: Sequence[str] = (), *, console: Console | None = None) -> dict[str, Any]:
    """Loads MODEL from disk, merges, scores and verifies it; for a run writes eval_results.json, plots and report.

    The split is test, else validation. `data.*` overrides score other data (a run's own data by default).
    """
    path = trained_path(model)
    config = _data_config(path, overrides)
    run = RunDirectory(path)
    own_data = run if run.is_run and not overrides else None
    results = score(load_trained(path), config, own_data)
    if own_data is not None:
        with disk_faults(run):
            write_json(run.eval_results, results)
            report(run, console or Console(stderr=True))
    return results


def verify(model: Path | str) -> dict[str, Any]:
    """Loads MODEL from disk and holds it against what training recorded: {"passed", "checks"}."""
    checks = verify_trained(load_trained(trained_path(model)))
    if checks is None:
        fix = "only what lorafy trained carries the logits to compare with"
        raise ModelError(Problem(str(model), "nothing to verify here", fix))
    return checks


def load(model: Path | str, overrides: Sequence[str] = ()) -> Classifier | LanguageModel:
    """MODEL ready for use: a Classifier, or a LanguageModel with its run's `generation` settings and overrides.

    MODEL is a run, an adapter folder, a model, or a recipe (which means its run). Raises ModelError where an adapter
    lies on another base than it was trained on.
    """
    path = trained_path(model, overrides)
    trained = load_trained(path)
    _require_same_base(trained)
    if trained.task.name == "causal_lm":
        config = _generation_config(Path(model), path, overrides)
        return LanguageModel(trained, config.generation, config.run.seed)
    _refuse_others(normalise_overrides(overrides), (), "a classifier")
    if trained.folder is None and trained.base.new_parameters:
        fix = "train one first: lorafy train RECIPE"
        raise ModelError(Problem(str(model), "this model has no trained classification head", fix))
    return Classifier(trained)


def load_classifier(model: Path | str) -> Classifier:
    """Raises ModelError for a language model."""
    loaded = load(model)
    if not isinstance(loaded, Classifier):
        raise ModelError(Problem(str(model), "this is a language model", "ask it with lorafy generate or lorafy chat"))
    return loaded


def load_language_model(model: Path | str, overrides: Sequence[str] = ()) -> LanguageModel:
    """Raises ModelError for a classifier."""
    loaded = load(model, overrides)
    if not isinstance(loaded, LanguageModel):
        raise ModelError(Problem(str(model), "this model classifies texts, it does not write", "use lorafy predict"))
    return loaded


def trained_path(model: Path | str, overrides: Sequence[str] = ()) -> Path:
    """MODEL as a path; a recipe stands for the model that its generation.model names, else for its run."""
    path = Path(model)
    if path.suffix.lower() not in (".yaml", ".yml") or not path.is_file():
        return path
    if _is_config_of_run(path):
        return path.parent
    config = load_config(path, overrides)
    if config.generation.model is not None:
        return Path(config.generation.model)
    return _find_run(path, config, path.stem).path


def _require_same_base(trained: Trained) -> None:
    manifest = trained.manifest
    if manifest is None or manifest.method == "full" or manifest.base_fingerprint == trained.base.fingerprint:
        return
    name = manifest.model["path"]
    message = (
        f"it was trained on other weights than those that {name} holds now "
        f"(fingerprint {manifest.base_fingerprint[:12]} then, {trained.base.fingerprint[:12]} now)"
    )
    raise ModelError(Problem(str(trained.folder), message, f"put the weights of {name} back, or train again"))


def _generation_config(model: Path, path: Path, overrides: Sequence[str]) -> RunConfig:
    """The given recipe's settings, else the run's, else the defaults; only `generation` and the seed may be set."""
    overrides = normalise_overrides(overrides)
    _refuse_others(overrides, ("generation.", "run.seed"), "talking with a model")
    if _sets("generation.model", overrides) and not model.is_file():
        problem = Problem("generation.model", "no effect: the model is named already", f"it is {model}; remove this")
        raise ConfigError(problem)
    run = next((run for run in map(RunDirectory, (path, path.parent)) if run.is_run), None)
    recipe = model if model.is_file() else None if run is None else run.config
    if recipe is not None:
        return load_config(recipe, overrides)
    tree: dict[str, Any] = {"model": {"path": str(path)}, "data": {"train": "none"}}  # the tree wants some data
    return parse_config(tree, "the overrides", apply_overrides(tree, overrides), overrides)


def merge(model: Path | str, output: Path | str) -> dict[str, Any]:
    """Writes base + adapter as one transformers model, reloads it and compares: {"output", "verification"}."""
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RunError(Problem(str(output), "is there already", "choose another --output"))
    trained = load_trained(trained_path(model))
    if trained.folder is None:
        raise ModelError(Problem(str(model), "has no adapter to merge"))
    inputs = probe_inputs(trained)
    precision = Precision(torch.float32, torch.device("cpu"))
    before = trained.logits(inputs, precision)
    trained.merge()
    if output.is_dir():
        output.rmdir()
    write_atomically(output, lambda target: files.save_merged(trained.model, trained.task.tokenizer, target))
    check = verification.check_merged(load_trained(output).logits(inputs, precision), before)
    return {"output": str(output), "verification": verification.as_result([check])}


def _refuse_others(overrides: Sequence[str], allowed: tuple[str, ...], what: str) -> None:
    """Raises ConfigError for settings that this verb does not look at."""
    others = [o for o in overrides if any(not key.startswith(allowed) for key in keys_of(override_name(o)))]
    if others:
        names = [f"{name}*" if name.endswith(".") else name for name in allowed]
        fix = f"here only {', '.join(names)}" if names else "remove it"
        raise ConfigError([Problem(other, f"no effect on {what}", fix) for other in others])


def _sets(key: str, overrides: Sequence[str]) -> bool:
    return any(key in keys_of(override_name(override)) for override in overrides)


def _data_config(path: Path, overrides: Sequence[str]) -> RunConfig:
    """The run's own recipe with overrides on it, or for another MODEL a recipe made of the overrides alone."""
    overrides = normalise_overrides(overrides)
    _refuse_others([o for o in overrides if "=" in o], ("data.", "generation.", "run.seed"), "an evaluation")
    run = RunDirectory(path)
    if not run.is_run and find_trained(path) is not None and RunDirectory(path.parent).is_run:
        run = RunDirectory(path.parent)
    if run.is_run:
        if _sets("data.validation", overrides):
            overrides = [*overrides, f"data.split={list(DEFAULT_SPLIT)}"]  # the run's own has nothing left to say
        return load_config(run.config, overrides)
    tree: dict[str, Any] = {"model": {"path": str(path)}}
    problems = apply_overrides(tree, overrides)
    data = tree.get("data")
    if isinstance(data, dict) and "train" not in data and data.get("test"):
        data["train"] = data["test"]  # the tree wants a train; only the scored split is looked at
    elif not data and path.exists():
        raise ConfigError(Problem(str(path), "is no run, so it has no data", "give some: data.test=FILE"))
    elif not data:
        fix = "check the path; for a model of the hub also give data.test=FILE"
        raise ConfigError(Problem(str(path), "no such run or folder", fix))
    return parse_config(tree, "the overrides", problems)


def _new_run(config: RunConfig, stem: str) -> RunDirectory:
    output_dir = Path(config.run.output_dir)
    names = [config.run.name or next_run_name(output_dir, stem)]
    run = RunDirectory(output_dir / broadcast_object_list(names)[0])
    if is_main_process():
        run.require_free()
    return run


def _is_config_of_run(path: Path) -> bool:
    run = RunDirectory(path.parent)
    return run.is_run and run.config == path


def _find_run(recipe: Recipe, config: RunConfig, stem: str) -> RunDirectory:
    """The run that a recipe made: the one it names, else its highest number. Raises RunError where there is none."""
    output_dir = Path(config.run.output_dir)
    path = Path(recipe) if isinstance(recipe, Path | str) else None
    if path is not None and path.is_dir():
        run = RunDirectory(path)
    elif path is not None and _is_config_of_run(path):
        run = RunDirectory(path.parent)
    elif config.run.name:
        run = RunDirectory(output_dir / config.run.name)
    else:
        numbers = numbered_runs(output_dir, stem)
        if not numbers:
            raise RunError(Problem(str(output_dir), f"holds no run of {stem}", "train it first, without --resume"))
        run = RunDirectory(output_dir / f"{stem}-{numbers[-1]}")
    if not run.is_run:
        raise RunError(Problem(str(run.path), "holds no run", "train it first, without --resume"))
    return run


def _run_to_resume(recipe: Recipe, config: RunConfig, stem: str) -> RunDirectory:
    run = _find_run(recipe, config, stem)
    differing = config_differences(config, load_config(run.config))
    if differing:
        message = f"the recipe differs from the run's in {', '.join(differing)}"
        fix = f"a resumed run is the same run: lorafy train {run.path} --resume; or start a new one"
        raise RunError(Problem(str(run.path), message, fix))
    return run


def is_main_process() -> bool:
    """False in all but one of a launcher's processes: those train, and neither write nor print."""
    return PartialState().is_main_process
