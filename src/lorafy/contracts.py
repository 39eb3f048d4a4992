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

from .types import Batch, ConfigError, Conversation, Encoded, Example, Features, LossOutput, Problem

if TYPE_CHECKING:
    from .config.schema import AdapterSection, Columns


class Format(Protocol):
    """formats/: a raw record becomes an Example. Pure."""

    TASK: str
    """The task that learns from such records."""

    def recognises(self, names: Sequence[str], config: Columns) -> bool:
        """Whether columns with these names, or the recipe's mapping, are of this format."""

    def resolve_columns(self, names: Sequence[str], config: Columns, where: str, *, answered: bool = True) -> Columns:
        """Which column plays which part; without the label or answer where `answered` is false.

        Raises DataError naming the columns that are there.
        """

    def parse(
        self,
        record: Mapping[str, Any],
        columns: Columns,
        source: str,
        row: int,
        label_names: Mapping[str, list[str]],
    ) -> Example | Conversation:
        """Raises DataError where the record is not of this format; the caller names the row."""


class Task(Protocol):
    """tasks/: an Example becomes Features, Features become a Batch, a Batch becomes a loss."""

    @property
    def name(self) -> str: ...

    @property
    def best_metric(self) -> str:
        """Which of the validation's metrics chooses the checkpoint."""

    @property
    def max_tokens(self) -> int | None:
        """Padded tokens of one micro-batch that this task's outputs allow; None: no limit of its own."""

    def encode(self, examples: Sequence[Any]) -> Encoded:
        """Every example becomes features or is skipped for a named reason."""

    def collate(self, features: Sequence[Features]) -> Batch:
        """Pads to `padded_length` of the longest of these features, never to a fixed length."""

    def padded_length(self, num_tokens: int) -> int: ...

    def loss(self, model: Any, batch: Batch) -> LossOutput:
        """The SUM over targets, in fp32."""

    def measure(self, model: Any, features: Sequence[Features], precision: Any) -> dict[str, float]:
        """The metrics of a validation, `loss` and `best_metric` among them. `model` is in eval mode."""

    def rank(self, metrics: Mapping[str, float]) -> list[float]:
        """The greater (as a list), the better: chooses the best checkpoint."""

    def probe(self, features: Sequence[Features]) -> dict[str, Any]:
        """A few inputs, to hold models against each other by their outputs."""

    def probe_outputs(self, model: Any, inputs: Mapping[str, Any]) -> Any:
        """Outputs of `model` on a probe, fp32, on the CPU, of a size that can be kept on disk."""


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
