"""LoRA against full fine-tuning and head only (of a language model: against its untrained base).

The same seed, data and evaluation, each training in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from .api import report
from .assemble import prepare
from .config import RunConfig, config_tree
from .config.schema import LEARNING_RATES, learning_rate
from .run_directory import RunDirectory, next_run_name, write_json, write_text
from .types import Problem, RunError

METHODS = {"classification": ("none", "lora", "full"), "causal_lm": ("lora", "full")}


CLASS_QUALITY = ("accuracy", "accuracy_interval", "f1_macro", "f1_macro_interval")
LANGUAGE_QUALITY = ("loss", "loss_interval", "perplexity", "perplexity_interval", "token_accuracy")
TEXT_QUALITY = ("exact_match", "bleu", "chrf", "rouge_l")


def run_comparison(config: RunConfig, stem: str, console: Console) -> tuple[RunDirectory, list[dict[str, Any]]]:
    """Trains the methods and returns a row for each, as in compare_results.json; a language model's base has one too.

    A process each, because peak memory is a property of a process. The recipe's adapter settings hold for its own
    method; the others take theirs by default, the learning rate too (LoRA's would destroy a fully trained model).
    """
    task = prepare(config).task.name  # and every mistake of the recipe, before anything is written
    methods = METHODS[task]
    output_dir = Path(config.run.output_dir).resolve()
    directory = RunDirectory(output_dir / (config.run.name or next_run_name(output_dir, f"{stem}-compare")))
    directory.create()
    rows: list[dict[str, Any]] = []
    for number, method in enumerate(methods, start=1):
        recipe = directory.path / f"{method}.yaml"
        write_text(
            recipe, yaml.safe_dump(_tree_for(config, method, directory.path), allow_unicode=True, sort_keys=False)
        )
        console.print(f"\n[bold]{method}[/] ({number} of {len(methods)})")
        trained = _train(recipe)
        if task == "causal_lm" and not rows:
            rows.append(_base_row(trained))
        rows.append(_row(method, trained))
    write_json(directory.compare_results, {"rows": rows})
    report(directory, console)
    return directory, rows


def _tree_for(config: RunConfig, method: str, folder: Path) -> dict[str, Any]:
    tree = config_tree(config)
    tree["run"] |= {"name": method, "output_dir": str(folder)}
    if method != config.adapter.method:
        tree["adapter"] = {"method": method}
        tree["train"]["learning_rate"] = LEARNING_RATES[method]
    else:
        tree["train"]["learning_rate"] = learning_rate(config)
    return tree


def _train(recipe: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "lorafy", "train", str(recipe), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=False)
    if done.returncode != 0:
        message = f"the training ended with exit code {done.returncode}"
        raise RunError(Problem(str(recipe), message, f"see its messages above; repeat: lorafy train {recipe}"))
    return json.loads(done.stdout)


def _row(method: str, trained: dict[str, Any]) -> dict[str, Any]:
    summary, results = trained["summary"], trained["results"]
    quality = _class_quality(results["metrics"])
    if results["task"] == "causal_lm":
        quality = _language_quality(results["metrics"]) | {"samples": _samples(results, "tuned")}
    return {
        "method": method,
        "task": results["task"],
        **quality,
        "split": results["split"],
        "num_examples": results["num_examples"],
        "trainable_parameters": summary["trainable_parameters"],
        "total_parameters": summary["total_parameters"],
        "peak_memory_bytes": summary["peak_memory_bytes"],
        "seconds": summary["seconds"],
        "bytes_on_disk": summary["bytes_on_disk"],
        "learning_rate": summary["learning_rate"],
        "verified": results["verification"]["passed"],
        "run": trained["run"],
    }


def _base_row(trained: dict[str, Any]) -> dict[str, Any]:
    """The untrained model, as the run of another method measured it: it cost nothing."""
    results = trained["results"]
    return _row("base", trained) | {
        **_language_quality(results["base"]),
        "samples": _samples(results, "base"),
        "trainable_parameters": 0,
        "peak_memory_bytes": None,
        "seconds": None,
        "bytes_on_disk": None,
        "learning_rate": None,
        "verified": None,
    }


def _class_quality(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {key: metrics[key] for key in CLASS_QUALITY if key in metrics}


def _language_quality(metrics: Mapping[str, Any]) -> dict[str, Any]:
    generation = metrics["generation"] or {}
    return {key: metrics[key] for key in LANGUAGE_QUALITY} | {key: generation.get(key) for key in TEXT_QUALITY}


def _samples(results: Mapping[str, Any], voice: str) -> list[dict[str, Any]]:
    return [
        {"prompt": sample["prompt"], "reference": sample["references"][0], "answer": sample[voice]}
        for sample in results["samples"]
    ]
