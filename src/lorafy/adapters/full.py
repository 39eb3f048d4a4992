"""Full fine-tuning: every weight is trained; of a model of several parts, every weight of the chosen ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..adapter_contract import AdapterMethod, Attached, Attachment
from ..config.schema import ModelSection
from ..machine.quiet import quiet_transformers
from ..models.trained_files import head_tensors

ONE_FILE = "1000GB"
"""Largest size of one weights file: above any model here, so that transformers writes no shards."""


class Full(AdapterMethod):
    """See `AdapterMethod`."""

    title = "full fine-tuning"
    learning_rate = 5e-5
    folder = "model"
    weights = "model.safetensors"
    keeps_base = False
    takes_packed = False
    compare_order = 2

    def attach(self, model: Any, request: Attachment) -> Attached:
        """Makes every parameter of the chosen parts trainable."""
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(request.trains(name))
        return Attached(model)

    def save(self, model: Any, folder: Path, head: Sequence[str]) -> None:
        """Writes the whole model in transformers' format."""
        with quiet_transformers():
            model.save_pretrained(folder, max_shard_size=ONE_FILE)

    def base_section(self, section: ModelSection, folder: Path) -> ModelSection:
        """The folder itself: it holds a whole model."""
        return section.model_copy(update={"path": str(folder), "revision": None})

    def load(self, base: Any, folder: Path, head: Sequence[str]) -> Any:
        """The base is what was trained, as it was loaded from the folder."""
        return base

    @contextmanager
    def as_base(self, model: Any, head: Sequence[str], load_base: Callable[[], Any]) -> Iterator[Any]:
        """The base's own weights, loaded again, under the trained head."""
        base = load_base()
        base.load_state_dict(head_tensors(model, head), strict=False)
        yield base


METHOD = Full()
