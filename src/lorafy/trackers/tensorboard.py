"""TensorBoard's event files: `tensorboard --logdir RUN/tensorboard`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..run_directory import RunDirectory

AXES = ("step", "split", "epoch", "seconds")


class TensorboardTracker:
    def __init__(self, run: RunDirectory, resume_step: int | None):
        from torch.utils.tensorboard import SummaryWriter

        purge_step = None if resume_step is None else resume_step + 1
        self._writer = SummaryWriter(str(run.tensorboard), purge_step=purge_step)

    def log(self, record: Mapping[str, Any]) -> None:
        for name, value in record.items():
            if name not in AXES and value is not None:
                self._writer.add_scalar(f"{record['split']}/{name}", value, record["step"])

    def close(self) -> None:
        self._writer.close()


def open_tracker(run: RunDirectory, resume_step: int | None) -> TensorboardTracker:
    return TensorboardTracker(run, resume_step)
