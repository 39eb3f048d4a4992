"""What was trained, on disk: adapter/ (peft's format), model/ (transformers' format) or head/, with lorafy.json.

lorafy.json is what inference needs beside the tensors, and what verification holds them against.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import safe_open, save_file

from ..machine.quiet import quiet_transformers
from ..run_directory import read_json, write_json
from ..types import ModelError, Problem

MANIFEST = "lorafy.json"
PROBE = "probe.safetensors"


@dataclass(frozen=True)
class Manifest:
    """lorafy.json. `model`: the recipe's model section. `prompt`: how a language model is asked (Renderer's settings
    and fingerprint). `settings`: what else its task needs. `probe`: the circumstances of probe.safetensors' logits."""

    lorafy_version: str
    task: str
    method: str
    model: dict[str, Any]
    base_fingerprint: str
    labels: list[str]
    max_length: int
    seed: int
    head: list[str]
    prompt: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""
    probe: dict[str, Any] = field(default_factory=dict)


def save_trained(
    write: Callable[[Path], None],
    weights: str,
    write_reader: Callable[[Path], None],
    manifest: Manifest,
    probe: Mapping[str, Any],
    folder: Path,
) -> None:
    """Writes tensors, tokenizer, probe and manifest into the new `folder`. write: the method's, for the file
    `weights`. write_reader: the task's."""
    folder.mkdir(parents=True)
    write(folder)
    write_reader(folder)
    save_file({name: tensor.contiguous() for name, tensor in probe.items()}, folder / PROBE)
    write_json(folder / MANIFEST, asdict(manifest) | {"weights_sha256": file_sha256(folder / weights)})


def save_merged(
    model: Any, write_reader: Callable[[Path], None], folder: Path, *, names_of_folder: bool = True
) -> None:
    """Writes one ordinary transformers model with what reads for it. write_reader: the task's. names_of_folder: the
    tensors are called as where it was loaded from; False: as in the model."""
    with quiet_transformers():
        model.save_pretrained(folder, save_original_format=names_of_folder)
    write_reader(folder)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in a folder; None where lorafy did not write it."""
    path = folder / MANIFEST
    return Manifest(**read_json(path)) if path.is_file() else None


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def head_tensors(model: Any, head: Sequence[str]) -> dict[str, torch.Tensor]:
    """The tensors of these modules, on the CPU."""
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if any(name.startswith(f"{part}.") for part in head)
    }


def tensor_names(path: Path) -> set[str]:
    """Names of the tensors in a safetensors file. Raises ModelError where it is absent or broken."""
    if not path.is_file():
        raise ModelError(Problem(str(path.parent), f"no {path.name} in this folder", "save it in safetensors format"))
    try:
        with safe_open(path, framework="pt") as file:
            return set(file.keys())
    except SafetensorError as error:
        raise ModelError(
            Problem(str(path), f"this file is broken: {error}", "copy it again, or train again")
        ) from error


def require_equal(expected: set[str], found: set[str], folder: Path) -> None:
    """Raises ModelError naming the tensors that are missing or left over."""
    problems = []
    for names, what in (
        (expected - found, "missing in"),
        (found - expected, "has no place in the model from"),
    ):
        if names:
            shown = ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            problems.append(Problem(str(folder), f"{what} this folder: {shown}", "it was trained on another base"))
    if problems:
        raise ModelError(problems)
