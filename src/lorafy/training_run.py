"""One training from recipe to verified adapter: opening the run directory, the loop, what is written at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, GradientAccumulationPlugin
from rich.console import Console

from .adapters import files
from .adapters.attach import count_parameters, hold_frozen_weights
from .announce import announce_run, announce_trained
from .assemble import BuiltModel, Prepared, build_model, prepare
from .config import RunConfig, config_tree, to_yaml
from .config.schema import TrainSection, learning_rate
from .contracts import Task, Tracker, load_plugin
from .data.batches import StepPlan
from .environment import describe_environment, package_version, processor_name
from .garbage import kept_from_collection
from .models.precision import Precision, choose_precision
from .prompt import Renderer
from .run_directory import RunDirectory, read_json, write_atomically, write_json, write_text
from .tasks.causal_lm import CausalLM
from .training.activations import fit_into_memory, measure_activations
from .training.checkpoint import Progress, disk_faults, remove_later_checkpoints
from .training.display import ProgressDisplay
from .training.hardware import HardwareSampler, peak_memory_bytes
from .training.loop import Training
from .training.optim import make_optimizer
from .training.paths import PlainPath, StepPath, choose_path
from .training.step import Stepper
from .types import ConfigError, DataError, Features, Interrupted, Problem, RunError


def run_training(config: RunConfig, run: RunDirectory, *, resume: bool, console: Console) -> None:
    """Trains in `run`, which is made here or, with `resume`, continued. The caller has named it in the config."""
    accelerator = make_accelerator()
    prepared = prepare(config)
    with kept_from_collection():
        _train_prepared(config, run, prepared, accelerator, console, resume)


def _train_prepared(
    config: RunConfig, run: RunDirectory, prepared: Prepared, accelerator: Accelerator, console: Console, resume: bool
) -> None:
    quiet = console if accelerator.is_main_process else Console(quiet=True)
    if resume:
        _require_same_data(run, prepared)
    precision = choose_precision(config.model.dtype, accelerator.device)
    torch.set_num_threads(_saved_threads(run) if resume else torch.get_num_threads())
    built = build_model(config, prepared.task)
    model = built.model
    announce_run(quiet, run, prepared, built, precision)
    with disk_faults(run), ExitStack() as stack:
        if accelerator.is_main_process:
            if not resume:
                run.create()
            stack.enter_context(run.lock())
            if not resume:
                _write_start(run, config, prepared, built)
        accelerator.wait_for_everyone()
        hold_frozen_weights(model, precision.dtype)
        model.to(accelerator.device)
        progress = _train(config, run, prepared, model, accelerator, precision, resume, quiet)
        if accelerator.is_main_process:
            _save_trained(config, run, prepared, built, precision)
            summary = _summary(config, run, prepared.task, model, progress, precision)
            write_json(run.summary, summary)
            announce_trained(console, summary)
        accelerator.wait_for_everyone()


def make_accelerator() -> Accelerator:
    """The device and the processes. Accumulation and precision are the recipe's, whatever the launcher's file says.

    Raises ConfigError under a launcher that shards the model, or whose processes do not see each other.
    """
    join_processes()
    plugin = GradientAccumulationPlugin(num_steps=1)
    accelerator = Accelerator(mixed_precision="no", gradient_accumulation_plugin=plugin)
    if accelerator.distributed_type not in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        message = f"lorafy does not train under {accelerator.distributed_type.value}"
        raise ConfigError(Problem("the launcher", message, "use data-parallel processes: torchrun, accelerate launch"))
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if launched != accelerator.num_processes:
        message = f"it started {launched} processes, but they do not see each other"
        raise ConfigError(Problem("the launcher", message, "start lorafy without it"))
    return accelerator


def join_processes() -> None:
    """Joins a launcher's processes; call it before anything else of accelerate.

    Without a GPU accelerate has to be told so: else each process takes itself for the only one, and all write.
    """
    PartialState(cpu="LOCAL_RANK" in os.environ and not torch.cuda.is_available())


def _require_same_data(run: RunDirectory, prepared: Prepared) -> None:
    recorded, found = read_json(run.preflight)["splits"], prepared.corpus.summary()
    names = sorted(set(recorded) | set(found))
    changed = [name for name in names if recorded.get(name) != found.get(name)]
    if changed:
        message = f"the data changed since this run began: its {', '.join(changed)} split is another one"
        raise DataError(Problem(str(run.path), message, "put the data back, or start a new run"))


def evaluate_in_fresh_process(run: RunDirectory) -> dict[str, Any]:
    """Scores and verifies what lies on disk, in a process that has trained nothing.

    Raises RunError where that process fails; its messages have gone to stderr.
    """
    command = [sys.executable, "-m", "lorafy", "evaluate", str(run.path), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=False)
    if not done.stdout.strip():
        message = f"the evaluation in a fresh process ended with exit code {done.returncode}"
        raise RunError(Problem(str(run.path), message, f"see its messages above; repeat: lorafy evaluate {run.path}"))
    return json.loads(done.stdout)


def _train(
    config: RunConfig,
    run: RunDirectory,
    prepared: Prepared,
    model: Any,
    accelerator: Accelerator,
    precision: Precision,
    resume: bool,
    console: Console,
) -> Progress:
    features = prepared.features["train"]
    plan = StepPlan(len(features), config.train.batch_size, config.run.seed)
    num_steps = plan.num_steps(config.train.num_epochs, config.train.max_steps)
    scaler = torch.amp.GradScaler(accelerator.device.type, enabled=precision.scales_loss)
    wrapped = accelerator.prepare_model(model) if accelerator.num_processes > 1 else model
    optimizer = make_optimizer(model, config.train)  # behind that, which may give parameters other memory
    step = run.named_step("last") if resume else None
    plain = PlainPath(wrapped, prepared.task, precision, config.train.micro_batch_size)
    path, is_fast = take_path(
        plain,
        model,
        config.train,
        features,
        plan,
        console,
        fast_wanted=config.train.kernels == "auto" and _took_fast_path(run, step),
        num_processes=accelerator.num_processes,
        resumed=bool(step),
    )
    stepper = Stepper(wrapped, path, optimizer, scaler, accelerator, precision, config.train.max_grad_norm)
    with ExitStack() as stack:
        trackers: list[Tracker] = []
        if accelerator.is_main_process:
            if resume:
                remove_later_checkpoints(run, step or 0)
            names = dict.fromkeys(["jsonl", *config.trackers])
            trackers = [load_plugin("trackers", name).open_tracker(run, step) for name in names]
            for tracker in trackers:
                stack.callback(tracker.close)
        display = ProgressDisplay(console, num_steps, step or 0)
        training = Training(
            run=run,
            config=config.train,
            seed=config.run.seed,
            peak_learning_rate=learning_rate(config),
            task=prepared.task,
            stepper=stepper,
            features=features,
            plan=plan,
            num_steps=num_steps,
            validate=_validation(prepared, model, precision),
            trackers=trackers,
            display=display,
            progress=Progress(num_threads=torch.get_num_threads()),
            is_fast=is_fast,
        )
        if step is not None:
            training.resume(step)
            console.print(f"Resumed after step {step} of {num_steps}.")
        if accelerator.is_main_process:
            gpu = precision.device.index if precision.device.type == "cuda" else None
            stack.enter_context(HardwareSampler(run.hardware, start_seconds=training.progress.seconds, gpu_index=gpu))
        stack.enter_context(display)
        try:
            return training.train()
        except Interrupted as stop:
            raise Interrupted(stop.signal_number, f"{stop}. Continue with: lorafy train {run.path} --resume") from None


def take_path(
    plain: PlainPath,
    model: Any,
    section: TrainSection,
    features: Sequence[Features],
    plan: StepPlan,
    console: Console,
    *,
    fast_wanted: bool,
    num_processes: int = 1,
    resumed: bool = False,
) -> tuple[StepPath, bool]:
    """How the steps are computed, said to the user; True where it is the fast path."""
    first = [features[index] for index in plan.examples(0)]
    choice = choose_path(
        plain, model, fast_wanted=fast_wanted, num_processes=num_processes, features=first, resumed=resumed
    )
    console.print(f"Kernels: {choice.message}", highlight=False)
    found = measure_activations(choice.path, model, features, plan)
    path, note = fit_into_memory(choice.path, section.activation_checkpointing, found)
    if note:
        console.print(note, highlight=False)
    return path, choice.is_fast


def _validation(prepared: Prepared, model: Any, precision: Precision) -> Any:
    features = prepared.features.get("validation")
    if not features:
        return None
    return lambda: prepared.task.measure(model, features, precision)


def _write_start(run: RunDirectory, config: RunConfig, prepared: Prepared, built: BuiltModel) -> None:
    write_json(run.environment, describe_environment())
    write_json(run.preflight, prepared.report(built.findings))
    write_text(run.config, to_yaml(config))


def _save_trained(
    config: RunConfig, run: RunDirectory, prepared: Prepared, built: BuiltModel, precision: Precision
) -> None:
    model, base = built.model, built.base
    folder = {"lora": run.adapter, "full": run.model, "none": run.head}[config.adapter.method]
    split = prepared.features.get("validation") or prepared.features[prepared.corpus.scored_split]
    inputs = prepared.task.probe(split)
    on_device = {name: tensor.to(precision.device) for name, tensor in inputs.items()}
    model.eval()
    with torch.inference_mode(), precision.autocast():
        probe = inputs | {"logits": prepared.task.probe_outputs(model, on_device)}
    manifest = files.Manifest(
        lorafy_version=str(package_version("lorafy")),
        task=prepared.task.name,
        method=config.adapter.method,
        model=config.model.model_dump(mode="json"),
        base_fingerprint=base.fingerprint,
        labels=prepared.corpus.label_names,
        max_length=prepared.task.max_length,
        seed=config.run.seed,
        head=base.head,
        prompt=prompt_facts(prepared.task.renderer) if isinstance(prepared.task, CausalLM) else None,
        probe=probe_circumstances(precision),
    )
    write_atomically(folder, lambda target: files.save_trained(model, prepared.task.tokenizer, manifest, probe, target))


def prompt_facts(renderer: Renderer) -> dict[str, Any]:
    return {"system": renderer.system, "thinking": renderer.thinking, "fingerprint": renderer.fingerprint}


def probe_circumstances(precision: Precision) -> dict[str, Any]:
    """Where all of these are equal, the same products are summed in the same order."""
    device = torch.cuda.get_device_name() if precision.device.type == "cuda" else processor_name()
    return {
        "dtype": precision.name,
        "device": device,
        "torch": torch.__version__,
        "num_threads": torch.get_num_threads(),
    }


def _summary(
    config: RunConfig, run: RunDirectory, task: Task, model: Any, progress: Progress, precision: Precision
) -> dict[str, Any]:
    count = count_parameters(model)
    trained = run.trained
    assert trained is not None
    gpu = precision.device.type == "cuda"
    return {
        "status": "finished",
        "task": task.name,
        "method": config.adapter.method,
        "learning_rate": learning_rate(config),
        "num_steps": progress.step,
        "fast_steps": progress.fast_steps,
        "stopped_early": progress.stopped_early,
        "best_step": progress.best_step,
        "best_metric": None if progress.best_metrics is None else task.best_metric,
        "best_value": None if progress.best_metrics is None else progress.best_metrics[task.best_metric],
        "seconds": round(progress.seconds, 2),
        "trainable_parameters": count.trainable,
        "total_parameters": count.total,
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if gpu else peak_memory_bytes(),
        "bytes_on_disk": (trained / files.WEIGHTS[config.adapter.method]).stat().st_size,
        "device": precision.device.type,
        "device_name": torch.cuda.get_device_name() if gpu else processor_name(),
        "dtype": precision.name,
        "num_threads": torch.get_num_threads(),
    }


def _took_fast_path(run: RunDirectory, step: int | None) -> bool:
    """A resumed run keeps its path: the other one rounds otherwise. True at a run's start."""
    return not step or read_json(run.checkpoint(step) / "state.json")["fast_steps"] > 0


def _saved_threads(run: RunDirectory) -> int:
    """The thread count of the checkpoint: sums in another order are other bits."""
    step = run.named_step("last")
    if step is None:
        return torch.get_num_threads()
    return read_json(run.checkpoint(step) / "state.json")["num_threads"]


def config_differences(left: RunConfig, right: RunConfig) -> list[str]:
    """Dotted keys whose values differ; the run's name and place do not count."""

    def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in tree.items():
            found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        return found

    a, b = leaves(config_tree(left)), leaves(config_tree(right))
    keys = sorted(set(a) | set(b))
    return [key for key in keys if key not in ("run.name", "run.output_dir") and a.get(key) != b.get(key)]


def with_run(config: RunConfig, run: Path) -> RunConfig:
    """The config with this run's name and place in it."""
    section = config.run.model_copy(update={"name": run.name, "output_dir": str(run.resolve().parent)})
    return config.model_copy(update={"run": section})
