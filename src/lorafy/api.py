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
from .config.load import apply_overrides, normalise_overrides, resolve_paths
from .config.schema import GenerationSection, ModelSection
from .data.saved import save_encoded
from .evaluation import verify as verification
from .inference.adapters import Adapters
from .kernels.packed import is_packed
from .machine.console import PlainConsole
from .models.trained_files import save_merged
from .run_directory import RunDirectory, read_json, read_jsonl, run_stem, write_atomically, write_json
from .training.checkpoint import disk_faults
from .training.processes import is_main_process, join_processes
from .types import ConfigError, ModelError, Problem, RunError, UserError
from .workflows.adapters import (
    AdaptersRecipe,
    load_ready,
    refuse_adapter,
    take_adapters,
)
from .workflows.combine import combine as combine
from .workflows.compare import comparison_to_resume, new_comparison, run_comparison
from .workflows.draw import draw_report
from .workflows.evaluate import PLAIN, score
from .workflows.evaluate import verify as verify_trained
from .workflows.fresh_process import run_verb
from .workflows.load import load_trained, require_able, require_same_base
from .workflows.merge import merge_packed, which_base
from .workflows.prepare import Prepared
from .workflows.prepare import prepare as prepare_recipe
from .workflows.runs import (
    Recipe,
    find_run,
    is_config_of_run,
    names_adapters,
    new_run,
    refuse_several,
    run_to_resume,
    with_run,
)
from .workflows.settings import data_config, generation_config, only_trust, refuse_others, sets
from .workflows.train import run_training
from .workflows.train_several import Planned, named, train_in_turn
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
    if names_adapters(recipe):
        where = str(recipe) if isinstance(recipe, Path | str) else "the recipe"
        fix = "use it with predict, generate, chat, evaluate or combine; train from a recipe without adapters"
        raise ConfigError(Problem(where, "names adapters that are trained already", fix))
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
        if not sets("run.name", overrides):
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
    _evaluate_afresh(run, config, console)
    return Run(run.path)


def train_all(recipes: Sequence[Recipe], overrides: Sequence[str] = (), *, console: Console | None = None) -> list[Run]:
    """Trains recipes over one base in turn, as `train` does each alone, bit for bit; the base is loaded once.

    All are checked before the first is trained: raises UserError with every mistake and its recipe. Where one stops,
    the console says which are done and how to go on.
    """
    console = console or PlainConsole(stderr=True)
    join_processes()
    plans, problems = [], []
    for number, recipe in enumerate(recipes, start=1):
        name = str(recipe) if isinstance(recipe, str | Path) else f"recipe {number}"
        try:
            plans.append(Planned(name, *load_recipe(recipe, overrides)))
        except UserError as error:
            problems += named(name, error)
    if problems:
        raise ConfigError(problems)
    runs = train_in_turn(plans, overrides, console, lambda run, config: _evaluate_afresh(run, config, console))
    return [Run(run.path) for run in runs]


def _evaluate_afresh(run: RunDirectory, config: RunConfig, console: Console) -> None:
    if is_main_process() and not run.eval_results.is_file():
        console.print("Evaluating and verifying from disk, in a fresh process ...")
        settings = [GIVEN] if config.model.trust_remote_code else []
        run_verb("evaluate", run.path, "the evaluation", settings, even_failed=True)
    PartialState().wait_for_everyone()


def compare(
    recipe: Recipe,
    overrides: Sequence[str] = (),
    *,
    methods: Sequence[str] | None = None,
    num_seeds: int = 1,
    resume: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Trains methods side by side by the same seeds: {"directory", "rows", "failed"}, rows as in compare_results.json.

    methods: names, as in docs/methods.md; None: LoRA, full fine-tuning, and head only where there is a head.
    resume: goes on with the comparison whose folder `recipe` is. Raises UserError for mistakes before anything is
    written; runs that fail are named in `failed`, and stop no other one.
    """
    console = console or PlainConsole(stderr=True)
    if resume:
        if methods is not None or num_seeds != 1:
            message = "no effect with --resume: the comparison goes on as it began"
            raise ConfigError(Problem("--methods, --seeds", message, "remove them"))
        comparison = comparison_to_resume(Path(str(recipe)), normalise_overrides(overrides))
    else:
        config, stem = load_recipe(recipe, overrides)
        comparison = new_comparison(config, stem, methods, num_seeds)
    console.print(Text(f"Everything is written into {comparison.directory.path}"))
    rows, failed = run_comparison(comparison, console)
    return {"directory": str(comparison.directory.path), "rows": rows, "failed": failed}


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


def evaluate(
    model: Path | str, overrides: Sequence[str] = (), *, adapter: str | None = None, console: Console | None = None
) -> dict[str, Any]:
    """Loads MODEL from disk, merges, scores and verifies it; for a run writes eval_results.json, plots and report.

    The split is test, else validation. `data.*` overrides score other data (a run's own data by default);
    `model.trust_remote_code=true` lets Python code that MODEL carries run. adapter: of a recipe that names several.
    """
    if names_adapters(model):
        recipe, rest, trust = take_adapters(model, overrides)
        return _score_adapter(recipe, recipe.require(adapter), rest, trust, console)
    refuse_adapter(model, adapter)
    overrides, said = take_trust(overrides)
    path = trained_path(model)
    return _score(path, overrides, data_config(path, overrides), trust_for(model, said), None, console)


def evaluate_all(
    model: Path | str, overrides: Sequence[str] = (), *, console: Console | None = None
) -> dict[str, dict[str, Any]]:
    """The results of each adapter that a recipe names, by name, as `evaluate` gives them."""
    recipe, rest, trust = take_adapters(model, overrides)
    return {name: _score_adapter(recipe, name, rest, trust, console) for name in recipe.names}


def _score_adapter(
    recipe: AdaptersRecipe, name: str, overrides: Sequence[str], trust: bool, console: Console | None
) -> dict[str, Any]:
    """On the recipe's data, else on those of the adapter's run."""
    path = recipe.path(name)
    config = recipe.config if recipe.has_data else data_config(path, overrides)
    return _score(path, ["data"] if recipe.has_data else overrides, config, trust, recipe.base, console)


def _score(
    path: Path,
    overrides: Sequence[str],
    config: RunConfig,
    trust: bool,
    base: ModelSection | None,
    console: Console | None,
) -> dict[str, Any]:
    """overrides: what is asked otherwise than the run asked; only without any are the results the run's own."""
    run = RunDirectory(path)
    own_data = run if run.is_run and not overrides and base is None else None
    if own_data is not None:
        own_data.refuse_links()
    trained = load_trained(path, trust=trust, base=base)
    if base is not None:
        require_same_base(trained)
    results = score(trained, config, own_data)
    if own_data is not None:
        with disk_faults(run):
            write_json(run.eval_results, results)
            draw_report(run, console or PlainConsole(stderr=True))
    return results


def verify(model: Path | str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Loads MODEL from disk and holds it against what training recorded, and merged: {"passed", "checks"}.

    overrides: `model.trust_remote_code=true` lets Python code that MODEL carries run, nothing else.
    """
    trust = only_trust(model, overrides, "a verification")
    checks = verify_trained(load_trained(trained_path(model), trust=trust))
    if checks is None:
        message = "a model as it comes: there is no adapter to verify"
        raise ModelError(Problem(str(model), message, "name a run, or the folder of an adapter"))
    return checks


def load(model: Path | str | Mapping[str, Any], overrides: Sequence[str] = ()) -> Any:
    """MODEL ready for use: a Classifier, or a LanguageModel with its run's `generation` settings and overrides, or what
    else its task makes of it.

    MODEL is a run, an adapter folder, a model, or a recipe (which means its run). A recipe or mapping that names
    several `adapters` gives all of them as one Adapters. Python code that it carries runs only with the override
    `model.trust_remote_code=true`. Raises ModelError where an adapter lies on another base than it was trained on.
    """
    if names_adapters(model):
        recipe, rest, trust = take_adapters(model, overrides)
        return Adapters(load_ready(recipe, recipe.names, rest, None, trust=trust))
    assert not isinstance(model, Mapping), "a mapping names adapters"
    return _ready(model, overrides, None)


def load_able(model: Path | str, ability: str, overrides: Sequence[str] = (), adapter: str | None = None) -> Any:
    """MODEL ready to do this: `predict` or `write`. Raises ModelError for one that cannot, with what it can do.

    adapter: of a recipe that names several, the one to take; no other is loaded then.
    """
    if names_adapters(model):
        recipe, rest, trust = take_adapters(model, overrides)
        name = recipe.require(adapter)
        return load_ready(recipe, [name], rest, ability, trust=trust)[name]
    refuse_adapter(model, adapter)
    return _ready(model, overrides, ability)


def _ready(model: Path | str, overrides: Sequence[str], ability: str | None) -> Any:
    overrides, said = take_trust(overrides)
    path = trained_path(model, overrides)
    trained = load_trained(path, trust=trust_for(model, said))
    require_same_base(trained)
    require_able(str(model), trained, ability)
    kind = trained.task.kind
    if "write" in kind.abilities:
        config = generation_config(Path(model), path, overrides)
        return trained.task.ready(trained, config.generation, config.run.seed)
    refuse_others(overrides, (), kind.noun)
    if trained.folder is None and trained.base.new_parameters:
        fix = "train one first: lorafy train RECIPE"
        raise ModelError(Problem(str(model), "this model has no trained classification head", fix))
    return trained.task.ready(trained, GenerationSection(), 0)


def trained_path(model: Path | str, overrides: Sequence[str] = ()) -> Path:
    """MODEL as a path; a recipe stands for the model that its generation.model names, else for its run."""
    path = Path(model)
    if path.suffix.lower() not in (".yaml", ".yml") or not path.is_file():
        return path
    refuse_several(path)
    if is_config_of_run(path):
        return path.parent
    config = load_config(path, overrides)
    if config.generation.model is not None:
        return Path(config.generation.model)
    return find_run(path, config, run_stem(path)).path


def merge(
    model: Path | str, output: Path | str, overrides: Sequence[str] = (), *, into: str | None = None
) -> dict[str, Any]:
    """Writes base + adapter as one transformers model, reloads it and compares: {"output", "verification"}.

    overrides: as of `verify`. into: of an adapter on a quantised base, `dequantised` (what it was trained on; the
    default) or `original`; the result then says `into` and, in `note`, how far the two are apart.
    """
    trust = only_trust(model, overrides, "a merge")
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RunError(Problem(str(output), "is there already", "choose another --output"))
    trained = load_trained(trained_path(model), trust=trust)
    if trained.folder is None:
        raise ModelError(Problem(str(model), "has no adapter to merge"))
    base = which_base(into, trained, is_packed(trained.model))
    if output.is_dir():
        output.rmdir()
    if is_packed(trained.model):
        return merge_packed(trained, output, base, lambda folder: load_trained(folder, trust=trust))
    inputs = trained.probe()
    before = trained.logits(inputs, PLAIN)
    trained.merge()
    write_atomically(output, lambda target: save_merged(trained.model, trained.task.write_reader, target))
    check = verification.check_merged(load_trained(output, trust=trust).logits(inputs, PLAIN), before)
    return {"output": str(output), "verification": verification.as_result([check])}
