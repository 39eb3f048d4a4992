"""Full fine-tuning: every weight is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..config.schema import AdapterSection


def attach(model: Any, config: AdapterSection, head: Sequence[str], base_name: str) -> Any:
    return model.requires_grad_(True)
