"""Head only, LoRA and full fine-tuning on the same seed, data and evaluation, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from .api import report
from .config import RunConfig, config_tree
from .config.schema import LEARNING_RATES, learning_rate
from .run_directory import RunDirectory, next_run_name, write_json, write_text
from .types import Problem, RunError

METHODS = ("none", "lora", "full")


def run_comparison(config: RunConfig, stem: str, console: Console) -> tuple[RunDirectory, list[dict[str, Any]]]:
    """Trains the three methods and returns a row for each, as in compare_results.json.

    A process each, because peak memory is a property of a process. The recipe's adapter settings hold for its own
    method; the others take theirs by default, the learning rate too (LoRA's would destroy a fully trained model).
    """
    output_dir = Path(config.run.output_dir).resolve()
    directory = RunDirectory(output_dir / (config.run.name or next_run_name(output_dir, f"{stem}-compare")))
    directory.create()
    rows = []
    for method in METHODS:
        recipe = directory.path / f"{method}.yaml"
        write_text(
            recipe, yaml.safe_dump(_tree_for(config, method, directory.path), allow_unicode=True, sort_keys=False)
        )
        console.print(f"\n[bold]{method}[/] ({METHODS.index(method) + 1} of {len(METHODS)})")
        rows.append(_row(method, _train(recipe)))
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
    metrics = results["metrics"]
    return {
        "method": method,
        "accuracy": metrics["accuracy"],
        "accuracy_interval": metrics["accuracy_interval"],
        "f1_macro": metrics["f1_macro"],
        "f1_macro_interval": metrics["f1_macro_interval"],
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
