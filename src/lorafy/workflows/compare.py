"""Methods side by side: LoRA, full fine-tuning and head only where there is a head, the untrained base where it says
something. The same seed, data and evaluation, each training in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from ..config import RunConfig, config_tree
from ..contracts import AdapterMethod, TaskKind
from ..plugins import load_method, plugin_names
from ..run_directory import RunDirectory, next_run_name, write_json, write_text
from ..tasks import load_kind
from .draw import draw_report
from .fresh_process import run_verb
from .prepare import Prepared, prepare


def run_comparison(config: RunConfig, stem: str, console: Console) -> tuple[RunDirectory, list[dict[str, Any]]]:
    """Trains the methods and returns a row for each, as in compare_results.json; with a row of the base before them.

    A process each, because peak memory is a property of a process. The recipe's adapter settings hold for its own
    method; the others take theirs by default, the learning rate too (LoRA's would destroy a fully trained model).
    """
    prepared = prepare(config)  # and every mistake of the recipe, before anything is written
    kind = prepared.task.kind
    methods = compared_methods(kind)
    output_dir = Path(config.run.output_dir).resolve()
    directory = RunDirectory(output_dir / (config.run.name or next_run_name(output_dir, f"{stem}-compare")))
    directory.create()
    rows: list[dict[str, Any]] = []
    for number, (name, method) in enumerate(methods.items(), start=1):
        recipe = directory.path / f"{name}.yaml"
        tree = _tree_for(prepared, name, method, directory.path)
        write_text(recipe, yaml.safe_dump(tree, allow_unicode=True, sort_keys=False))
        console.print(Text.assemble("\n", (name, "bold"), f" ({number} of {len(methods)})"))
        trained = run_verb("train", recipe, "the training")
        if kind.view.has_base and not rows:
            rows.append(_base_row(trained))
        rows.append(_row(name, method.title, trained, "metrics"))
    write_json(directory.compare_results, {"rows": rows})
    draw_report(directory, console)
    return directory, rows


def compared_methods(kind: TaskKind) -> dict[str, AdapterMethod]:
    """The methods, by name, that ask to be compared and have something to train here, in their order."""
    every = {name: load_method(name) for name in plugin_names("adapters")}
    usable = {
        name: m for name, m in every.items() if m.compare_order is not None and (kind.has_head or not m.needs_head)
    }
    return dict(sorted(usable.items(), key=lambda item: item[1].compare_order or 0))


def _tree_for(prepared: Prepared, name: str, method: AdapterMethod, folder: Path) -> dict[str, Any]:
    config = prepared.config
    tree = config_tree(config)
    tree["run"] |= {"name": name, "output_dir": str(folder)}
    if name != config.adapter.method:
        parts = {} if method.needs_head else {"parts": config.adapter.parts}
        tree["adapter"] = {"method": name} | parts  # the same part of the model for all
        tree["train"]["learning_rate"] = method.learning_rate
    else:
        tree["train"]["learning_rate"] = prepared.learning_rate
    return tree


def _row(name: str, title: str, trained: dict[str, Any], voice: str) -> dict[str, Any]:
    """One row of compare_results.json. voice: as of `View.comparison_row`."""
    summary, results = trained["summary"], trained["results"]
    return {
        "method": name,
        "title": title,
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
        "run": trained["run"],
    }


def _base_row(trained: dict[str, Any]) -> dict[str, Any]:
    """The untrained model, as the run of another method measured it: it cost nothing."""
    nothing = ("peak_memory_bytes", "seconds", "bytes_on_disk", "learning_rate", "verified")
    cost = {"trainable_parameters": 0} | dict.fromkeys(nothing)
    return _row("base", "base, untrained", trained, "base") | cost
