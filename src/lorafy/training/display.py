"""A progress bar with loss, accuracy, speed, memory and time left; a line for each validation."""

from __future__ import annotations

from collections.abc import Mapping
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

from ..types import StepStats
from .hardware import current_memory_bytes

SMOOTHING = 0.9


class ProgressDisplay:
    """Shows a run on a console while entered. The shown loss and accuracy are running means over about ten steps."""

    def __init__(self, console: Console, num_steps: int, first_step: int):
        self._console = console
        self._bar = Progress(
            TextColumn("[bold]step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
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
        loss, accuracy = self._mean("loss", stats.loss), self._mean("accuracy", stats.accuracy)
        speed = self._mean("speed", stats.num_examples / stats.seconds)
        memory = current_memory_bytes() / 2**30
        figures = f"loss {loss:.3f}  accuracy {accuracy:.1%}  {speed:,.0f} examples/s  {memory:.1f} GiB"
        self._bar.update(self._task, completed=stats.step, figures=figures)

    def on_validation(self, record: Mapping[str, Any], is_best: bool) -> None:
        best = "  [green]best so far[/]" if is_best else ""
        if "perplexity" in record:
            figures = f"perplexity {record['perplexity']:.4g}  token accuracy {record['accuracy']:.2%}"
        else:
            figures = f"accuracy {record['accuracy']:.2%}  macro F1 {record['f1_macro']:.4f}"
        self._console.print(
            f"  step {record['step']:>5}  epoch {record['epoch']:.2f}  validation loss {record['loss']:.4f}  "
            f"{figures}{best}",
            highlight=False,
        )

    def _mean(self, name: str, value: float) -> float:
        self._means[name] = SMOOTHING * self._means.get(name, value) + (1 - SMOOTHING) * value
        return self._means[name]
