"""A progress bar with loss, accuracy, speed, memory and time left; a line for each validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ..metrics import Metric
from ..types import StepStats
from .hardware import current_memory_bytes

SMOOTHING = 0.9


class ProgressDisplay:
    """Shows a run on a console while entered. The shown loss and score are running means over about ten steps."""

    def __init__(self, console: Console, num_steps: int, first_step: int, score: Metric, validated: Sequence[Metric]):
        """score: counted beside the loss in every step. validated: shown of a validation, beside its loss."""
        self._score, self._validated = score, validated
        self._console = console
        self._bar = Progress(
            TextColumn("step", style="bold", markup=False),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left", markup=False),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=4,
            transient=True,
        )
        self._task = self._bar.add_task("train", total=num_steps, completed=first_step, figures="")
        self._means: dict[str, float] = {}

    def __enter__(self) -> ProgressDisplay:
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def on_step(self, stats: StepStats) -> None:
        """Moves the bar on."""
        loss, score = self._mean("loss", stats.loss), self._mean("score", stats.score)
        speed = self._mean("speed", stats.num_examples / stats.seconds)
        memory = current_memory_bytes() / 2**30
        counted = f"{self._score.title} {self._score.write(score)}"
        figures = f"loss {loss:.3f}  {counted}  {speed:,.0f} examples/s  {memory:.1f} GiB"
        self._bar.update(self._task, completed=stats.step, figures=figures)

    def on_validation(self, record: Mapping[str, Any], is_best: bool) -> None:
        """Prints a line with the validation's loss and metrics."""
        best = ("  best so far" if is_best else "", "green")
        figures = "  ".join(f"{metric.title} {metric.write(record[metric.key])}" for metric in self._validated)
        where = f"  step {record['step']:>5}  epoch {record['epoch']:.2f}"
        self._console.print(Text.assemble(f"{where}  validation loss {record['loss']:.4f}  {figures}", best))

    def _mean(self, name: str, value: float) -> float:
        self._means[name] = SMOOTHING * self._means.get(name, value) + (1 - SMOOTHING) * value
        return self._means[name]
