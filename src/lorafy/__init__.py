"""lorafy: LoRA fine-tuning that is never silently wrong, fast on the machine you have, and small enough to read."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from .api import Run, combine, compare, evaluate, load, merge, train, train_all, verify
    from .inference.adapters import Adapters
    from .inference.classify import Classifier, Prediction
    from .inference.generate import Answer
    from .inference.language_model import LanguageModel
    from .tasks.multi_label.predict import MultiLabelClassifier, MultiLabelPrediction
    from .tasks.regression.predict import Regressor, ValuePrediction
    from .types import ConfigError, DataError, Interrupted, ModelError, NonFiniteLoss, RunError, UserError

_HOMES = {
    "api": ("Run", "combine", "compare", "evaluate", "load", "merge", "train", "train_all", "verify"),
    "inference.adapters": ("Adapters",),
    "inference.classify": ("Classifier", "Prediction"),
    "inference.generate": ("Answer",),
    "inference.language_model": ("LanguageModel",),
    "tasks.multi_label.predict": ("MultiLabelClassifier", "MultiLabelPrediction"),
    "tasks.regression.predict": ("Regressor", "ValuePrediction"),
    "types": ("ConfigError", "DataError", "Interrupted", "ModelError", "NonFiniteLoss", "RunError", "UserError"),
}
"""Where each public name is defined: they are loaded when they are first used, so that `import lorafy` and
`lorafy --help` import no torch."""

__all__ = [
    "Adapters",
    "Answer",
    "Classifier",
    "ConfigError",
    "DataError",
    "Interrupted",
    "LanguageModel",
    "ModelError",
    "MultiLabelClassifier",
    "MultiLabelPrediction",
    "NonFiniteLoss",
    "Prediction",
    "Regressor",
    "Run",
    "RunError",
    "UserError",
    "ValuePrediction",
    "__version__",
    "combine",
    "compare",
    "evaluate",
    "load",
    "merge",
    "train",
    "train_all",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("lorafy")
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'lorafy' has no attribute '{name}'")
    return getattr(importlib.import_module(f"lorafy.{home}"), name)


def __dir__() -> list[str]:
    return __all__
