"""The run directory, the only hand-over between verbs. This is the only file that knows its names."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .types import Problem, RunError


class RunDirectory:
    """Paths of one run, and the ways to write there so that a kill or a full disk leaves no half file."""

    def __init__(self, path: Path | str):
        self.path = Path(path)

    config = property(lambda self: self.path / "config.yaml")
    environment = property(lambda self: self.path / "environment.json")
    preflight = property(lambda self: self.path / "preflight.json")
    metrics = property(lambda self: self.path / "metrics.jsonl")
    hardware = property(lambda self: self.path / "hardware.jsonl")
    ranks = property(lambda self: self.path / "ranks.jsonl")
    tensorboard = property(lambda self: self.path / "tensorboard")
    checkpoints = property(lambda self: self.path / "checkpoints")
    adapter = property(lambda self: self.path / "adapter")
    model = property(lambda self: self.path / "model")
    head = property(lambda self: self.path / "head")
    summary = property(lambda self: self.path / "summary.json")
    eval_results = property(lambda self: self.path / "eval_results.json")
    comparison = property(lambda self: self.path / "comparison.json")
    compare_results = property(lambda self: self.path / "compare_results.json")
    plots = property(lambda self: self.path / "plots")
    report = property(lambda self: self.path / "report.html")

    def trained_folder(self, name: str) -> Path:
        """The folder of a method that calls its folder `name`."""
        folders = {path.name: path for path in (self.adapter, self.model, self.head)}
        return folders[name]

    @property
    def trained(self) -> Path | None:
        """The folder that holds what was trained, whichever method it was; None while training is not finished."""
        return next((path for path in (self.adapter, self.model, self.head) if path.is_dir()), None)

    @property
    def is_run(self) -> bool:
        """Whether a run began here; a config.yaml alone is somebody's recipe."""
        return self.config.is_file() and self.preflight.is_file()

    @property
    def is_finished(self) -> bool:
        """Whether training is finished and what was trained is there."""
        return self.summary.is_file() and self.trained is not None

    def require_free(self) -> None:
        """Raises RunError where something is there already."""
        if any(parent.is_file() for parent in (self.path, *self.path.parents)):
            message = "a file stands where a folder is needed"
            raise RunError(Problem(str(self.path), message, "choose another run.output_dir or run.name"))
        if self.is_run:
            fix = f"continue it: lorafy train {self.path} --resume; or choose another name: run.name=..."
            raise RunError(Problem(str(self.path), "already holds a run", fix))
        if self.path.is_dir() and any(entry.name != ".lock" for entry in self.path.iterdir()):
            raise RunError(Problem(str(self.path), "already holds files", "choose another name: run.name=..."))

    def refuse_links(self) -> None:
        """Raises RunError where a part that is written or removed is a link that leads out of the run: those would be
        somebody's other files. The other files are replaced, never written through."""
        folders = (self.plots, self.tensorboard, self.checkpoints)
        parts = [self.metrics, self.hardware, self.ranks, self.path / ".lock", *folders]
        parts += [part for folder in folders for part in folder.glob("*")]
        home = self.path.resolve()
        outside = sorted(str(part) for part in parts if part.is_symlink() and not part.resolve().is_relative_to(home))
        if outside:
            fix = "put what it leads to in its place (cp -rL copies a run so), or remove the link"
            raise RunError([Problem(part, "this link leads out of the run", fix) for part in outside])

    def create(self) -> None:
        """Makes the folder. Raises RunError where that cannot be."""
        self.require_free()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"this folder cannot be made: {error.strerror}"
            raise RunError(Problem(str(self.path), message, "choose another run.output_dir")) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the run for this process. The operating system frees it when the process dies."""
        self.path.mkdir(parents=True, exist_ok=True)
        held = FileLock(self.path / ".lock")
        try:
            held.acquire(timeout=0)
        except Timeout as error:
            fix = "wait for it, stop it, or choose another run.name"
            raise RunError(Problem(str(self.path), "another process is training in it", fix)) from error
        try:
            yield
        finally:
            held.release()

    def checkpoint(self, step: int) -> Path:
        """The folder of the checkpoint of a step."""
        return self.checkpoints / f"step-{step:06d}"

    def saved_steps(self) -> list[int]:
        """Steps with a complete checkpoint, rising."""
        if not self.checkpoints.is_dir():
            return []
        matches = (re.fullmatch(r"step-(\d{6,})", path.name) for path in self.checkpoints.iterdir())
        return sorted(int(match.group(1)) for match in matches if match)

    def named_step(self, name: str) -> int | None:
        """The step that checkpoints/best.json or last.json names."""
        path = self.checkpoints / f"{name}.json"
        return read_json(path)["step"] if path.is_file() else None

    def name_step(self, name: str, step: int, **facts: Any) -> None:
        """Writes a step, and facts about it, into checkpoints/best.json or last.json."""
        write_json(self.checkpoints / f"{name}.json", {"step": step, **facts})


def run_stem(recipe: Path) -> str:
    """What a recipe's runs are called: its name, without what `run.name` must not hold."""
    return re.sub(r"[^\w.\-]+", "-", recipe.stem).lstrip(".-") or "run"


def next_run_name(output_dir: Path, stem: str) -> str:
    """`stem-1`, or the number after the highest that is there."""
    numbers = numbered_runs(output_dir, stem)
    return f"{stem}-{max(numbers, default=0) + 1}"


def numbered_runs(output_dir: Path, stem: str) -> list[int]:
    """The numbers n of the runs `stem-n` that are there, rising."""
    if not output_dir.is_dir():
        return []
    matches = (re.fullmatch(re.escape(stem) + r"-(\d+)", path.name) for path in output_dir.iterdir())
    return sorted(int(match.group(1)) for match in matches if match)


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` make a file or a folder beside `path`, then renames it there in one move.

    After an error (a full disk) what stood at `path` before still stands, and nothing else is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        target = scratch / path.name
        write(target)
        if path.is_dir():
            Path(path).replace(scratch / "replaced")
        Path(target).replace(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text as UTF-8, whole or not at all."""

    def write(target: Path) -> None:
        with target.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    write_atomically(path, write)


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON in UTF-8 (NaN is refused), whole or not at all."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a jsonl file; a last line that a kill cut short is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]
