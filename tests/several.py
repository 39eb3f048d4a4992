"""Recipes of different heads and methods over one base, trained without evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lorafy.config import RunConfig, parse_config
from lorafy.plugins import load_method
from lorafy.run_directory import RunDirectory
from lorafy.workflows.train_several import Planned, train_in_turn
from trained_runs import train

QUIET = Console(quiet=True)


def news_csv(path: Path) -> Path:
    """40 texts of four labels."""
    subjects = {"sport": "match", "money": "bank", "science": "planet", "world": "border"}
    rows = [f'{label},"the {word} in item {number}"' for number in range(10) for label, word in subjects.items()]
    path.write_text("\n".join(["label,text", *rows]) + "\n", encoding="utf-8", newline="\n")
    return path


def config_of(base: Path | str, file: Path, folder: Path, name: str, **sections: Any) -> RunConfig:
    tree: dict[str, Any] = {
        "run": {"name": name, "output_dir": str(folder)},
        "model": {"path": str(base), "dtype": "float32"},
        "data": {"train": str(file)},
        "train": {"max_steps": 4, "batch_size": 8, "log_every": 1, "learning_rate": 5e-3},
        "trackers": ["jsonl"],
    }
    for key, values in sections.items():
        tree[key] = tree.get(key, {}) | values
    return parse_config(tree, "the test")


def in_turn(configs: Sequence[RunConfig], console: Console = QUIET) -> list[RunDirectory]:
    plans = [Planned(f"{config.run.name}.yaml", config, str(config.run.name)) for config in configs]
    return train_in_turn(plans, [], console, lambda run, config: None)


def alone(config: RunConfig, folder: Path) -> RunDirectory:
    return train(config, folder / str(config.run.name))


def folder_of(run: RunDirectory) -> Path:
    """Where what was trained lies."""
    assert run.trained is not None, f"{run.path} is not finished"
    return run.trained


def sha256(run: RunDirectory, method: str) -> str:
    return hashlib.sha256((folder_of(run) / load_method(method).weights).read_bytes()).hexdigest()
