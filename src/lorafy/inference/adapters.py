"""Several adapters on one base, ready for use: `load("both.yaml").adapter("topic").predict(["a text"])`."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from ..types import ConfigError, Problem


class Adapters:
    """The models by name. Each is what its adapter alone would be, to the last bit of every answer; the weights of the
    base are in memory once. Asking one after the other costs nothing: nothing is loaded, moved or merged."""

    def __init__(self, models: Mapping[str, Any]):
        self._models = dict(models)

    @property
    def names(self) -> list[str]:
        """The names of the adapters, as the recipe has them."""
        return list(self._models)

    def adapter(self, name: str) -> Any:
        """The model of this adapter: a Classifier, a LanguageModel, or what else its task makes of it.

        Raises ConfigError with the names that exist.
        """
        if name not in self._models:
            near = difflib.get_close_matches(name, self.names, n=1, cutoff=0.6)
            start = f"did you mean {near[0]}? " if near else ""
            problem = Problem("adapter", f"there is no adapter '{name}'", f"{start}there are {', '.join(self.names)}")
            raise ConfigError(problem)
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)
