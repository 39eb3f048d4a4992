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
from .assemble import Prepared, Trained, differing_base_logits, find_trained, load_trained
from .config import RunConfig, load_config, parse_config
from .config.load import apply_override, resolve_paths
from .config.schema import DEFAULT_SPLIT
from .data.corpus import load_corpus
from .data.saved import save_encoded
from .evaluation import verify as verification
from .evaluation.evaluate import evaluate as score
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
from .training.checkpoint import disk_faults
from .training_run import (
    config_differences,
    evaluate_in_fresh_process,
    join_processes,
    probe_circumstances,
    run_training,
    with_run,
)
from .types import ConfigError, DataError, ModelError, Problem, RunError

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
        return list(self._trained.task.label_names)

    def classify(self, texts: Sequence[str | tuple[str, str]]) -> list[Prediction]:
        """One prediction a text; a pair of texts is a tuple."""
        return classify(self._trained.model, self._trained.task, texts, self._trained.precision)


def load_recipe(recipe: Recipe, overrides: Sequence[str] = ()) -> tuple[RunConfig, str]:
    """The config, and the stem that numbers its runs. A mapping's paths are relative to the current folder."""
    if isinstance(recipe, RunConfig):
        return recipe, "run"
    if isinstance(recipe, Mapping):
        tree = json.loads(json.dumps(recipe, default=str))  # a copy; paths become text
        resolve_paths(tree, Path.cwd())
        problems = [problem for problem in (apply_override(tree, override) for override in overrides) if problem]
        return parse_config(tree, "the recipe", problems), "run"
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
        if not any(override.startswith("run.name=") for override in overrides):
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
    path = Path(model)
    config = _data_config(path, overrides)
    trained = load_trained(model)
    checks = _verify(trained)
    trained.merge()
    trained.place()
    corpus = load_corpus(config)
    split = corpus.scored_split
    run = RunDirectory(path)
    if run.is_run and not overrides:
        _require_same_data(run, split, corpus.fingerprint(split))
    unknown = sorted({str(e.label) for e in corpus.splits[split]} - set(trained.task.label_names))
    if unknown:
        message = f"labels that this model does not know: {', '.join(unknown[:5])}"
        raise DataError(Problem(f"data.{split}", message, f"it knows {', '.join(trained.task.label_names)}"))
    results = {
        "task": trained.task.name,
        "split": split,
        **score(trained.model, trained.task, corpus.splits[split], trained.precision),
        "verification": checks,
        "dtype": trained.precision.name,
    }
    if run.is_run and not overrides:
        with disk_faults(run):
            write_json(run.eval_results, results)
            report(run, console or Console(stderr=True))
    return results


def verify(model: Path | str) -> dict[str, Any]:
    """Loads MODEL from disk and holds it against what training recorded: {"passed", "checks"}."""
    checks = _verify(load_trained(model))
    if checks is None:
        fix = "only what lorafy trained carries the logits to compare with"
        raise ModelError(Problem(str(model), "nothing to verify here", fix))
    return checks


def load(model: Path | str) -> Classifier:
    """MODEL (a run, an adapter folder, a classifier) ready to classify texts."""
    trained = load_trained(model)
    if trained.folder is None and trained.base.new_parameters:
        fix = "train one first: lorafy train RECIPE"
        raise ModelError(Problem(str(model), "this model has no trained classification head", fix))
    return Classifier(trained)


def merge(model: Path | str, output: Path | str) -> dict[str, Any]:
    """Writes base + adapter as one transformers model, reloads it and compares: {"output", "verification"}."""
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RunError(Problem(str(output), "is there already", "choose another --output"))
    trained = load_trained(model)
    if trained.folder is None:
        raise ModelError(Problem(str(model), "has no adapter to merge"))
    inputs = _probe_inputs(trained)
    precision = Precision(torch.float32, torch.device("cpu"))
    before = trained.logits(inputs, precision)
    trained.merge()
    if output.is_dir():
        output.rmdir()
    write_atomically(output, lambda target: files.save_merged(trained.model, trained.task.tokenizer, target))
    check = verification.check_merged(load_trained(output).logits(inputs, precision), before)
    return {"output": str(output), "verification": verification.as_result([check])}


def _verify(trained: Trained) -> dict[str, Any] | None:
    """Every check that the folder allows; None for a model that lorafy did not train. Leaves `trained` merged."""
    manifest, folder = trained.manifest, trained.folder
    if manifest is None or folder is None:
        return None
    from safetensors.torch import load_file

    probe = load_file(folder / files.PROBE)
    in_memory = probe.pop("logits")
    plain = Precision(torch.float32, torch.device("cpu"))
    adapter = trained.logits(probe, plain)
    base = differing_base_logits(trained, probe, plain)
    trained.place()
    reloaded = trained.logits(probe, trained.precision)
    trained.model.to("cpu")
    dtype = manifest.probe["dtype"]
    same = manifest.probe == probe_circumstances(trained.precision)
    checks = [
        verification.check_unchanged(
            files.file_sha256(folder / files.WEIGHTS[manifest.method]), manifest.weights_sha256
        ),
        verification.check_reloaded(reloaded, in_memory, dtype, same),
        verification.check_differs(adapter, base),
    ]
    if manifest.method != "full":
        checks.insert(1, verification.check_base(trained.base.fingerprint, manifest.base_fingerprint))
    if manifest.method == "lora":
        trained.merge()
        checks.append(verification.check_merged(trained.logits(probe, plain), adapter))
    return verification.as_result(checks)


def _probe_inputs(trained: Trained) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    assert trained.folder is not None
    path = trained.folder / files.PROBE
    if path.is_file():
        return {name: tensor for name, tensor in load_file(path).items() if name != "logits"}
    encoded = trained.task.tokenizer(
        ["to be or not to be", "that is the question", "?"], padding=True, return_tensors="pt"
    )
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def _data_config(path: Path, overrides: Sequence[str]) -> RunConfig:
    """The run's own recipe with overrides on it, or for another MODEL a recipe made of the overrides alone."""
    run = RunDirectory(path)
    if not run.is_run and find_trained(path) is not None and RunDirectory(path.parent).is_run:
        run = RunDirectory(path.parent)
    if run.is_run:
        if any(override.startswith("data.validation=") for override in overrides):
            overrides = [*overrides, f"data.split={list(DEFAULT_SPLIT)}"]  # the run's own has nothing left to say
        return load_config(run.config, overrides)
    tree: dict[str, Any] = {"model": {"path": str(path)}}
    problems = [problem for problem in (apply_override(tree, override) for override in overrides) if problem]
    data = tree.get("data")
    if isinstance(data, dict) and "train" not in data and data.get("test"):
        data["train"] = data["test"]  # the tree wants a train; only the scored split is looked at
    elif not data and path.exists():
        raise ConfigError(Problem(str(path), "is no run, so it has no data", "give some: data.test=FILE"))
    elif not data:
        fix = "check the path; for a model of the hub also give data.test=FILE"
        raise ConfigError(Problem(str(path), "no such run or folder", fix))
    return parse_config(tree, "the overrides", problems)


def _require_same_data(run: RunDirectory, split: str, fingerprint: str) -> None:
    recorded = read_json(run.preflight)["splits"].get(split, {}).get("sha256")
    if recorded != fingerprint:
        message = f"the data changed since training: its {split} split is another one, and may hold training rows"
        fix = "put the data back, or name what to score: data.test=FILE"
        raise DataError(Problem(str(run.path), message, fix))


def _new_run(config: RunConfig, stem: str) -> RunDirectory:
    output_dir = Path(config.run.output_dir)
    names = [config.run.name or next_run_name(output_dir, stem)]
    run = RunDirectory(output_dir / broadcast_object_list(names)[0])
    if is_main_process():
        run.require_free()
    return run


def _run_to_resume(recipe: Recipe, config: RunConfig, stem: str) -> RunDirectory:
    output_dir = Path(config.run.output_dir)
    path = Path(recipe) if isinstance(recipe, Path | str) else None
    if path is not None and path.is_dir():
        run = RunDirectory(path)
    elif path is not None and RunDirectory(path.parent).config == path:
        run = RunDirectory(path.parent)
    elif config.run.name:
        run = RunDirectory(output_dir / config.run.name)
    else:
        numbers = numbered_runs(output_dir, stem)
        if not numbers:
            raise RunError(Problem(str(output_dir), f"holds no run of {stem} to resume", "train without --resume"))
        run = RunDirectory(output_dir / f"{stem}-{numbers[-1]}")
    if not run.is_run:
        raise RunError(Problem(str(run.path), "holds no run to resume", "train without --resume"))
    differing = config_differences(config, load_config(run.config))
    if differing:
        message = f"the recipe differs from the run's in {', '.join(differing)}"
        fix = f"a resumed run is the same run: lorafy train {run.path} --resume; or start a new one"
        raise RunError(Problem(str(run.path), message, fix))
    return run


def is_main_process() -> bool:
    """False in all but one of a launcher's processes: those train, and neither write nor print."""
    return PartialState().is_main_process
