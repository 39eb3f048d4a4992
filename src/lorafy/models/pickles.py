"""Weights that are a pickle: a format that can hold commands. They are read without them, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from ..config.schema import ModelSection
from ..types import ModelError, Problem
from . import embedded

SAFE, SAFE_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def pickled_weights(section: ModelSection) -> str | None:
    """The pickle that is read where this model is loaded, or was; None for safetensors. Of a hub model only what lies
    in the cache is known, so ask when it is loaded.

    transformers reads it with torch's weights_only: tensors and containers, and an error for anything else.
    """
    place = embedded.resolve(section.path, section.revision)
    if Path(place).is_dir():
        names = {path.name for path in Path(place).iterdir()}
    else:
        found = {name: _cached(place, name, section.revision) for name in (SAFE, SAFE_INDEX, *PICKLED)}
        names = {name for name, is_there in found.items() if is_there}
    if SAFE in names or SAFE_INDEX in names:
        return None
    return next((name for name in PICKLED if name in names), None)


def _cached(name: str, file: str, revision: str | None) -> bool:
    return isinstance(try_to_load_from_cache(name, file, revision=revision), str)


def refuse_pickled(folder: Path) -> None:
    """Raises ModelError unless all weights of the model in `folder` are safetensors of that folder."""
    if (folder / SAFE).is_file():
        return
    fix = "read it elsewhere, and save it with save_pretrained: that writes safetensors"
    try:
        files = set(json.loads((folder / SAFE_INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except FileNotFoundError:
        pickled = next((name for name in PICKLED if (folder / name).is_file()), None)
        message = "these weights came along with what is loaded, and are not in safetensors"
        if pickled is not None:
            message = f"these weights came along with what is loaded, and are a pickle ({pickled})"
        raise ModelError(Problem(str(folder), message, fix)) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(Problem(str(folder / SAFE_INDEX), f"this file is broken: {error}")) from error
    other = sorted(
        str(name) for name in files if Path(str(name)).name != name or not str(name).endswith(".safetensors")
    )
    if other:
        message = f"{SAFE_INDEX} came along with what is loaded, and names other files: {', '.join(other[:3])}"
        raise ModelError(Problem(str(folder), message, fix))
