"""DoRA (Liu et al. 2024, section 4) through peft: m V x / |V|, row by row, where V = W + (alpha / r) B A, and m starts
as |W|."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ..run_directory import read_json
from .lora import Lora


class Dora(Lora):
    """See `Lora`. Trained beside A and B is m, a length for each output of a layer."""

    title = "DoRA"
    # In bfloat16 training takes the lengths of the weights as they are held, rounded, and on disk they are not.
    reloads_exactly = False
    variant: ClassVar[Mapping[str, Any]] = {"use_dora": True}

    def claims(self, folder: Path) -> bool:
        """peft's folders of this method."""
        return super().claims(folder) and bool(read_json(folder / "adapter_config.json").get("use_dora"))


METHOD = Dora()
