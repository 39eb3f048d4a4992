"""Head only: the base is frozen, the classification head is trained. The baseline that LoRA has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..config.schema import AdapterSection


def attach(model: Any, config: AdapterSection, head: Sequence[str], base_name: str) -> Any:
    model.requires_grad_(False)
    for name in head:
        model.get_submodule(name).requires_grad_(True)
    return model
