"""What notebooks call, and what every verb is built on: train, evaluate, verify, load, merge."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from accelerate import PartialState
from rich.console import Console
from rich.text import Text

from .config import RunConfig, load_config, parse_config
from .config.flat import keys_of, override_name
from .config.load import apply_overrides, normalise_overrides, resolve_paths
from .config.schema import DEFAULT_SPLIT, GenerationSection
from .data.saved import save_encoded
from .evaluation import verify as verification
from .inference.trained import Trained
from .machine.console import PlainConsole
from .models.trained_files import save_merged
from .run_directory import RunDirectory, read_json, read_jsonl, run_stem, write_atomically, write_json
from .training.checkpoint import disk_faults
from .training.processes import is_main_process, join_processes
from .types import ConfigError, ModelError, Problem, RunError
from .workflows.draw import draw_report
from .workflows.evaluate import PLAIN, score
from .workflows.evaluate import verify as verify_trained
from .workflows.fresh_process import run_verb
from .workflows.load import find_trained, load_trained
from .workflows.prepare import Prepared
from .workflows.prepare import prepare as prepare_recipe
from .workflows.runs import Recipe, find_run, is_config_of_run, new_run, run_to_resume, with_run
from .workflows.train import run_training
from .workflows.trust import GIVEN, refuse_own_word, take_trust, trust_for


@dataclass(frozen=True)
class Run:
    """A finished run. Its files are the truth; the properties read them."""

    path: Path

    @property
    def directory(self) -> RunDirectory:
        """The paths of the run's files."""
        return RunDirectory(self.path)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """summary.json: what was trained, its best validation, seconds, peak memory and size on disk."""
        return read_json(self.directory.summary)

    @cached_property
    def results(self) -> dict[str, Any]:
        """eval_results.json: metrics, verification, worst mistakes."""
        return read_json(self.directory.eval_results)

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """metrics.jsonl: a record for each logged step and each validation."""
        return read_jsonl(self.directory.metrics)


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
    if Path(recipe).is_dir():
        refuse_own_word(Path(recipe), config, overrides)
    if path.name == "config.yaml" and RunDirectory(path.parent).is_run:
        # The recipe of a run: its repetition gets the next number, and stands beside it.
        stem = path.resolve().parent.name.rpartition("-")[0] or path.resolve().parent.name
        if not _sets("run.name", overrides):
            config = config.model_copy(update={"run": config.run.model_copy(update={"name": None})})
        return config, stem
    return config, run_stem(path)


def train(
    recipe: Recipe, overrides: Sequence[str] = (), *, resume: bool = False, console: Console | None = None
) -> Run:
    """Trains, then evaluates and verifies from disk in a fresh process, then draws and reports.

    `console` shows progress (stderr by default; `Console(quiet=True)` for none). Raises UserError for mistakes,
    all of them at once, before anything is written; Interrupted after a signal, with a checkpoint written.
    """
    console = console or PlainConsole(stderr=True)
    join_processes()
    config, stem = load_recipe(recipe, overrides)
    run = run_to_resume(recipe, config, stem) if resume else new_run(config, stem)
    if resume and run.is_finished:
        console.print(Text(f"{run.path} is finished: there is nothing to resume."))
    else:
        run_training(with_run(config, run.path), run, resume=resume, console=console)
    if is_main_process() and not run.eval_results.is_file():
        console.print("Evaluating and verifying from disk, in a fresh process ...")
        settings = [GIVEN] if config.model.trust_remote_code else []
        run_verb("evaluate", run.path, "the evaluation", settings, even_failed=True)
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
    prepared = prepare_recipe(config)
    if output is not None:
        write_atomically(output, lambda target: save_encoded(prepared.corpus, prepared.features, target))
    return prepared


def evaluate(model: Path | str, overrides: Sequence[str] = (), *, console: Console | None = None) -> dict[str, Any]:
    """Loads MODEL from disk, merges, scores and verifies it; for a run writes eval_results.json, plots and report.

    The split is test, else validation. `data.*` overrides score other data (a run's own data by default);
    `model.trust_remote_code=true` lets Python code that MODEL carries run.
    """
    overrides, said = take_trust(overrides)
    path = trained_path(model)
    config = _data_config(path, overrides)
    run = RunDirectory(path)
    own_data = run if run.is_run and not overrides else None
    if own_data is not None:
        own_data.refuse_links()
    results = score(load_trained(path, trust=trust_for(model, said)), config, own_data)
    if own_data is not None:
        with disk_faults(run):
            write_json(run.eval_results, results)
            draw_report(run, console or PlainConsole(stderr=True))
    return results


def verify(model: Path | str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Loads MODEL from disk and holds it against what training recorded: {"passed", "checks"}.

    overrides: `model.trust_remote_code=true` lets Python code that MODEL carries run, nothing else.
    """
    trust = _only_trust(model, overrides, "a verification")
    checks = verify_trained(load_trained(trained_path(model), trust=trust))
    if checks is None:
        fix = "only what lorafy trained carries the logits to compare with"
        raise ModelError(Problem(str(model), "nothing to verify here", fix))
    return checks


def load(model: Path | str, overrides: Sequence[str] = ()) -> Any:
    """MODEL ready for use: a Classifier, or a LanguageModel with its run's `generation` settings and overrides, or what
    else its task makes of it.

    MODEL is a run, an adapter folder, a model, or a recipe (which means its run). Python code that it carries runs only
    with the override `model.trust_remote_code=true`. Raises ModelError where an adapter lies on another base than it
    was trained on.
    """
    return _ready(model, overrides, None)


def load_able(model: Path | str, ability: str, overrides: Sequence[str] = ()) -> Any:
    """MODEL ready to do this: `predict` or `write`. Raises ModelError for one that cannot, with what it can do."""
    return _ready(model, overrides, ability)


VERBS = {"write": "ask it with lorafy generate or lorafy chat", "predict": "use lorafy predict"}
"""What to do with a model of each ability."""


def _ready(model: Path | str, overrides: Sequence[str], ability: str | None) -> Any:
    overrides, said = take_trust(overrides)
    path = trained_path(model, overrides)
    trained = load_trained(path, trust=trust_for(model, said))
    _require_same_base(trained)
    kind = trained.task.kind
    if ability is not None and ability not in kind.abilities:
        does = " or ".join(VERBS[known] for known in kind.abilities if known in VERBS)
        raise ModelError(Problem(str(model), f"this is {kind.noun}", does or None))
    if "write" in kind.abilities:
        config = _generation_config(Path(model), path, overrides)
        return trained.task.ready(trained, config.generation, config.run.seed)
    _refuse_others(overrides, (), kind.noun)
    if trained.folder is None and trained.base.new_parameters:
        fix = "train one first: lorafy train RECIPE"
        raise ModelError(Problem(str(model), "this model has no trained classification head", fix))
    return trained.task.ready(trained, GenerationSection(), 0)


def trained_path(model: Path | str, overrides: Sequence[str] = ()) -> Path:
    """MODEL as a path; a recipe stands for the model that its generation.model names, else for its run."""
    path = Path(model)
    if path.suffix.lower() not in (".yaml", ".yml") or not path.is_file():
        return path
    if is_config_of_run(path):
        return path.parent
    config = load_config(path, overrides)
    if config.generation.model is not None:
        return Path(config.generation.model)
    return find_run(path, config, run_stem(path)).path


def _require_same_base(trained: Trained) -> None:
    manifest = trained.manifest
    if manifest is None or trained.method is None or not trained.method.keeps_base:
        return
    if manifest.base_fingerprint == trained.base.fingerprint:
        return
    name = manifest.model["path"]
    message = (
        f"it was trained on other weights than those that {name} holds now "
        f"(fingerprint {manifest.base_fingerprint[:12]} then, {trained.base.fingerprint[:12]} now)"
    )
    raise ModelError(Problem(str(trained.folder), message, f"put the weights of {name} back, or train again"))


def _generation_config(model: Path, path: Path, overrides: Sequence[str]) -> RunConfig:
    """The given recipe's settings, else the run's, else the defaults; only `generation` and the seed may be set."""
    _refuse_others(overrides, ("generation.", "run.seed"), "talking with a model")
    if _sets("generation.model", overrides) and not model.is_file():
        problem = Problem("generation.model", "no effect: the model is named already", f"it is {model}; remove this")
        raise ConfigError(problem)
    run = next((run for run in map(RunDirectory, (path, path.parent)) if run.is_run), None)
    recipe = model if model.is_file() else None if run is None else run.config
    if recipe is not None:
        return load_config(recipe, overrides)
    tree: dict[str, Any] = {"model": {"path": str(path)}, "data": {"train": "unused"}}  # the tree wants some data
    return parse_config(tree, "the overrides", apply_overrides(tree, overrides), overrides)


def merge(model: Path | str, output: Path | str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Writes base + adapter as one transformers model, reloads it and compares: {"output", "verification"}.

    overrides: as of `verify`.
    """
    trust = _only_trust(model, overrides, "a merge")
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RunError(Problem(str(output), "is there already", "choose another --output"))
    trained = load_trained(trained_path(model), trust=trust)
    if trained.folder is None:
        raise ModelError(Problem(str(model), "has no adapter to merge"))
    inputs = trained.probe()
    before = trained.logits(inputs, PLAIN)
    trained.merge()
    if output.is_dir():
        output.rmdir()
    write_atomically(output, lambda target: save_merged(trained.model, trained.task.write_reader, target))
    check = verification.check_merged(load_trained(output, trust=trust).logits(inputs, PLAIN), before)
    return {"output": str(output), "verification": verification.as_result([check])}


def _only_trust(model: Path | str, overrides: Sequence[str], what: str) -> bool:
    """Whether code of MODEL may run, for a verb that has no other settings."""
    rest, said = take_trust(overrides)
    _refuse_others(rest, (), what)
    return trust_for(model, said)


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
