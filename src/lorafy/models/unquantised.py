"""The weights that a quantised base was made of, read again from its safetensors, one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from safetensors import safe_open
from transformers.pytorch_utils import Conv1D

from ..config.schema import ModelSection
from ..types import ModelError, Problem
from . import embedded

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class Unquantised:
    """Called with a layer's name, gives its weight (out, in) in float32. Raises ModelError where it is not found."""

    def __init__(self, section: ModelSection, model: Any) -> None:
        self._section = section
        with torch.device("meta"):
            self._skeleton = type(model)(model.config)  # knows of what kind each layer was
        self._shards: dict[str, Path] | None = None

    def __call__(self, name: str) -> torch.Tensor:
        if self._shards is None:
            self._shards = self._find()
        key = self._key(f"{name}.weight", self._shards)
        with safe_open(self._shards[key], framework="pt", device="cpu") as file:
            weight = file.get_tensor(key).float()
        return weight.T if isinstance(self._skeleton.get_submodule(name), Conv1D) else weight

    def _key(self, name: str, known: Iterable[str]) -> str:
        """The file's name of a tensor: the same, or the one whose end is the same for longest. Models of several parts
        are called otherwise on disk, and so is a bare base."""
        alike = {other: _common_end(name, other) for other in known}
        longest = max(alike.values())
        found = [other for other, length in alike.items() if length == longest]
        if name in alike:
            return name
        if longest < 2 or len(found) > 1 or not any(level.isdigit() for level in name.split(".")[-longest:]):
            message = f"{self._section.path} has no weight named {name} in its safetensors"
            raise ModelError(Problem("model.path", message, "use adapter.method=lora"))
        return found[0]

    def _find(self) -> dict[str, Path]:
        """The file of each tensor."""
        index = self._file(INDEX)
        if index is not None:
            names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            files = {name: self._file(name) for name in sorted(set(names.values()))}
            found = {key: files[name] for key, name in names.items()}
            return {key: path for key, path in found.items() if path is not None}
        whole = self._file(WHOLE)
        if whole is None:
            message = f"{self._section.path} has no safetensors, from which the whole weights could be read one by one"
            raise ModelError(Problem("model.path", message, "use adapter.method=lora"))
        with safe_open(whole, framework="pt", device="cpu") as file:
            return dict.fromkeys(file.keys(), whole)

    def _file(self, name: str) -> Path | None:
        """Where it lies; None where there is none."""
        place = embedded.resolve(self._section.path, self._section.revision)
        if Path(place).is_dir():
            return Path(place) / name if (Path(place) / name).is_file() else None
        try:
            return Path(hf_hub_download(place, name, revision=self._section.revision))
        except (OSError, ValueError):  # the hub has none, or cannot be reached
            return None


def _common_end(left: str, right: str) -> int:
    """How many levels of two dotted names are equal, from the end on."""
    levels = zip(reversed(left.split(".")), reversed(right.split(".")), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], levels))
