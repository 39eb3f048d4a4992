"""lorafy: LoRA fine-tuning that is never silently wrong, fast on the machine you have, and small enough to read."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Classifier, Run, evaluate, load, merge, train, verify

__all__ = ["Classifier", "Run", "evaluate", "load", "merge", "train", "verify"]


def __getattr__(name: str) -> Any:
    """Public names are loaded when they are first used, so that `import lorafy` and `lorafy --help` import no torch."""
    if name in __all__:
        return getattr(importlib.import_module("lorafy.api"), name)
    raise AttributeError(f"module 'lorafy' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
