"""What was trained, on disk: adapter/ (peft's format), model/ (transformers' format) or head/, with lorafy.json.

lorafy.json is what inference needs beside the tensors, and what verification holds them against.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, safe_open, save_file

from ..quiet import quiet_transformers
from ..run_directory import read_json, write_json
from ..types import ModelError, Problem

MANIFEST = "lorafy.json"
PROBE = "probe.safetensors"
WEIGHTS = {"lora": "adapter_model.safetensors", "full": "model.safetensors", "none": "head.safetensors"}


@dataclass(frozen=True)
class Manifest:
    """`model`: the recipe's model section. `prompt`: how a language model is asked (Renderer's settings and
    fingerprint). `probe`: the circumstances of the logits in probe.safetensors."""

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
    weights_sha256: str = ""
    probe: dict[str, Any] = field(default_factory=dict)


def save_trained(
    model: Any, tokenizer: Any, manifest: Manifest, probe: Mapping[str, torch.Tensor], folder: Path
) -> None:
    """Writes tensors, tokenizer, probe and manifest into `folder`. `model` is left as it is."""
    folder.mkdir(parents=True)
    if manifest.method == "none":
        save_file(_head_tensors(model, manifest.head), folder / WEIGHTS["none"])
    else:
        # One file, and no look at the hub for whether the vocabulary was resized: lorafy never resizes it.
        options = {"max_shard_size": "1000GB"} if manifest.method == "full" else {"save_embedding_layers": False}
        with quiet_transformers():
            model.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    save_file({name: tensor.contiguous() for name, tensor in probe.items()}, folder / PROBE)
    values = asdict(manifest) | {"weights_sha256": file_sha256(folder / WEIGHTS[manifest.method])}
    write_json(folder / MANIFEST, values)


def save_merged(model: Any, tokenizer: Any, folder: Path) -> None:
    """One ordinary transformers model with its tokenizer."""
    with quiet_transformers():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def read_manifest(folder: Path) -> Manifest | None:
    """None where the folder was not written by lorafy."""
    path = folder / MANIFEST
    return Manifest(**read_json(path)) if path.is_file() else None


def load_lora(base_model: Any, folder: Path) -> Any:
    """The base with the adapter of `folder`. Raises ModelError where a tensor is missing, left over or misshapen."""
    try:
        with quiet_peft():
            model = PeftModel.from_pretrained(base_model, str(folder))
    except KeyError as error:  # a tensor of a trained head, where peft only warns of A and B
        message = f"missing in this folder: {error.args[0]}"
        raise ModelError(Problem(str(folder), message, "copy it again, or train again")) from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        # torch says in the first line that something is wrong, in the next ones what.
        reason = "; ".join(line.strip() for line in str(error).splitlines()[:5])
        fix = "it was trained on another base than adapter_config.json names, or that base was changed since"
        raise ModelError(Problem(str(folder), f"this adapter does not fit its base: {reason}", fix)) from error
    expected = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    _require_equal(expected, tensor_names(folder / WEIGHTS["lora"]), folder)
    return model


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Without a deprecation that nobody here can act on, and without a warning of what `load_lora` refuses."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found missing adapter keys", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield


def load_head(base_model: Any, folder: Path, head: list[str]) -> Any:
    """The base with the trained head of `folder` put in."""
    names = tensor_names(folder / WEIGHTS["none"])
    expected = _head_tensors(base_model, head)
    _require_equal(set(expected), names, folder)
    tensors = load_file(folder / WEIGHTS["none"])
    misshapen = [name for name in expected if tensors[name].shape != expected[name].shape]
    if misshapen:
        message = f"tensors of another shape than the base's: {', '.join(misshapen)}"
        raise ModelError(Problem(str(folder), message, "it was trained on another base"))
    base_model.load_state_dict(tensors, strict=False)
    return base_model


def merged(model: Any) -> Any:
    """W + (alpha / r) B A in every adapted layer, the adapter's modules gone. Changes `model`; use what it returns."""
    if not isinstance(model, PeftModel):
        return model
    try:
        return model.merge_and_unload(safe_merge=True)
    except ValueError as error:  # peft found NaN or infinity
        message = f"this adapter holds values that are no numbers: {error}"
        raise ModelError(Problem("adapter", message, "train again with a lower train.learning_rate")) from error


def set_lora_enabled(model: Any, enabled: bool) -> None:
    """Switches A and B, and leaves the trained head in place (peft's disable_adapter would take it out too)."""
    from peft.tuners.lora import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.enable_adapters(enabled)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _head_tensors(model: Any, head: list[str]) -> dict[str, torch.Tensor]:
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if any(name.startswith(f"{part}.") for part in head)
    }


def tensor_names(path: Path) -> set[str]:
    """Raises ModelError where the file is absent or broken."""
    if not path.is_file():
        raise ModelError(Problem(str(path.parent), f"no {path.name} in this folder", "save it in safetensors format"))
    try:
        with safe_open(path, framework="pt") as file:
            return set(file.keys())
    except SafetensorError as error:
        raise ModelError(
            Problem(str(path), f"this file is broken: {error}", "copy it again, or train again")
        ) from error


def _require_equal(expected: set[str], found: set[str], folder: Path) -> None:
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
