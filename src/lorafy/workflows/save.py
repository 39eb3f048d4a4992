"""What is written at the end of a training: the trained weights with all that proves them, and the summary."""

from __future__ import annotations

from typing import Any

import torch

from ..config.schema import RunConfig
from ..inference.trained import outputs_on_probe
from ..machine.environment import package_version, processor_name
from ..models.parameters import count_parameters
from ..models.precision import Precision
from ..models.trained_files import Manifest, save_trained
from ..run_directory import RunDirectory, write_atomically
from ..training.checkpoint import Progress
from ..training.hardware import peak_memory_bytes
from .build import BuiltModel
from .evaluate import probe_circumstances
from .prepare import Prepared


def write_trained(run: RunDirectory, prepared: Prepared, built: BuiltModel, precision: Precision) -> None:
    """The method's folder: tensors, tokenizer, manifest, and the outputs on a probe as they are in memory now."""
    config, task, model, method = prepared.config, prepared.task, built.model, built.method
    split = prepared.features.get("validation") or prepared.features[prepared.corpus.scored_split]
    inputs = task.probe(split)
    model.eval()
    with torch.inference_mode():
        probe = inputs | {"logits": outputs_on_probe(task, model, inputs, precision)}
    manifest = Manifest(
        lorafy_version=str(package_version("lorafy")),
        task=task.name,
        method=config.adapter.method,
        model=config.model.model_dump(mode="json"),
        base_fingerprint=built.base.fingerprint,
        max_length=task.max_length,
        seed=config.run.seed,
        head=built.base.head,
        probe=probe_circumstances(precision),
        **task.settings(),
    )

    def write(folder: Any) -> None:
        save_trained(
            lambda target: method.save(model, target, built.base.head),
            method.weights,
            task.write_reader,
            manifest,
            probe,
            folder,
        )

    write_atomically(run.trained_folder(method.folder), write)


def summarise(
    config: RunConfig,
    run: RunDirectory,
    prepared: Prepared,
    built: BuiltModel,
    progress: Progress,
    precision: Precision,
) -> dict[str, Any]:
    """summary.json: what was trained, how long it took, what it cost."""
    task, method = prepared.task, built.method
    count = count_parameters(built.model)
    gpu = precision.device.type == "cuda"
    best = progress.best_metrics
    return {
        "status": "finished",
        "task": task.name,
        "method": config.adapter.method,
        "learning_rate": prepared.learning_rate,
        "num_steps": progress.step,
        "fast_steps": progress.fast_steps,
        "stopped_early": progress.stopped_early,
        "best_step": progress.best_step,
        "best_metric": None if best is None else task.best_metric,
        "best_value": None if best is None else best[task.best_metric],
        "seconds": round(progress.seconds, 2),
        "trainable_parameters": count.trainable,
        "total_parameters": count.total,
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if gpu else peak_memory_bytes(),
        "bytes_on_disk": (run.trained_folder(method.folder) / method.weights).stat().st_size,
        "device": precision.device.type,
        "device_name": torch.cuda.get_device_name() if gpu else processor_name(),
        "dtype": precision.name,
        "num_threads": torch.get_num_threads(),
    }
