"""The seams, as protocols, on one page. A plug-in is one file in a seam's folder; its stem is its name in YAML.

Each file's docstring says what it is; `load_plugin("trackers", "jsonl")` is the whole registry.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from .types import Batch, ConfigError, Example, Features, LossOutput, Problem

if TYPE_CHECKING:
    from .config.schema import AdapterSection, Columns


class Format(Protocol):
    """formats/: a raw record becomes an Example. Pure."""

    def resolve_columns(self, names: Sequence[str], config: Columns, where: str, *, labelled: bool = True) -> Columns:
        """Which column plays which part. Raises DataError naming the columns that are there."""

    def parse(
        self,
        record: Mapping[str, Any],
        columns: Columns,
        source: str,
        row: int,
        label_names: Mapping[str, list[str]],
    ) -> Example: ...


class Task(Protocol):
    """tasks/: an Example becomes Features, Features become a Batch, a Batch becomes a loss."""

    def encode(self, examples: Sequence[Example]) -> list[Features]: ...

    def collate(self, features: Sequence[Features], rows: Sequence[int]) -> Batch:
        """Pads to `padded_length` of the longest of these features, never to a fixed length."""

    def padded_length(self, num_tokens: int) -> int: ...

    def loss(self, model: Any, batch: Batch) -> LossOutput:
        """The SUM over targets, in fp32."""


class AdapterMethod(Protocol):
    """adapters/: what of a model is trained. The file defines `attach`."""

    def attach(self, model: Any, config: AdapterSection, head: Sequence[str], base_name: str) -> Any:
        """Freezes and adds parameters; returns the model to train. Trainable parameters are fp32."""


class Tracker(Protocol):
    """trackers/: where metrics go. The file defines `open_tracker(run, resume_step) -> Tracker`."""

    def log(self, record: Mapping[str, Any]) -> None:
        """`record` holds `step`, `split` (train or validation) and numbers."""

    def close(self) -> None: ...


def plugin_names(seam: str) -> list[str]:
    """The names that a seam's folder offers."""
    folder = Path(__file__).parent / seam
    return sorted(module.name for module in pkgutil.iter_modules([str(folder)]))


def load_plugin(seam: str, name: str) -> ModuleType:
    """The module `name` of the folder `seam`. Raises ConfigError with the names that exist."""
    names = plugin_names(seam)
    if name not in names:
        raise ConfigError(Problem(seam, f"'{name}' is not one of {', '.join(names)}"))
    return importlib.import_module(f"lorafy.{seam}.{name}")
