"""Base model and tokenizer, from a folder, the embedded package or the hub."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from ..config.schema import ModelSection
from ..types import ModelError, Problem
from . import embedded

MAX_LENGTH = 512
"""Longest text where the recipe names none: attention's cost grows with its square."""
UNLIMITED = 1_000_000
"""A tokenizer that knows no limit says so by a huge model_max_length."""


@dataclass(frozen=True)
class BaseModel:
    """A model for classification whose head may be new.

    `head`: names of its modules that are not the pretrained base (`classifier`, DistilBERT's `pre_classifier`...),
    and of base modules that the checkpoint lacks. `new_names`: the parameters that start at random, `new_parameters`
    their number of values.
    `fingerprint`: of the base's weights, to notice an adapter put on another base.
    """

    model: Any
    head: list[str]
    new_names: list[str]
    new_parameters: int
    fingerprint: str


def load_tokenizer(config: ModelSection) -> Any:
    with _loading(config):
        tokenizer = AutoTokenizer.from_pretrained(
            embedded.resolve(config.path, config.revision),
            revision=config.revision,
            trust_remote_code=config.trust_remote_code,
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            message = f"the tokenizer of {config.path} has neither a padding token nor an end token"
            raise ModelError(Problem("model.path", message, "set pad_token in its tokenizer_config.json"))
        tokenizer.pad_token = tokenizer.eos_token  # padding is masked by position: no text loses its end by it
    tokenizer.padding_side = "right"
    return tokenizer


def longest_text(config: ModelSection, tokenizer: Any, wanted: int | None) -> int:
    """The recipe's max_length, else the model's limit, 512 at most. Raises ModelError over the model's limit."""
    with _loading(config):
        model_config = AutoConfig.from_pretrained(
            embedded.resolve(config.path, config.revision),
            revision=config.revision,
            trust_remote_code=config.trust_remote_code,
        )
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length < UNLIMITED else []
    name = "max_position_embeddings"  # GPT-2 calls it n_positions, and has a table of such names
    positions = model_config.to_dict().get(model_config.attribute_map.get(name, name))
    if positions is not None:
        # RoBERTa's positions start behind the padding index: 514 positions hold 512 tokens.
        limits.append(
            positions - 2 if model_config.model_type in ("roberta", "xlm-roberta", "camembert") else positions
        )
    limit = min(limits, default=UNLIMITED)
    if wanted is not None and wanted > limit:
        raise ModelError(Problem("data.max_length", f"{wanted} is over the limit of {config.path}: {limit} tokens"))
    return wanted or min(limit, MAX_LENGTH)


def load_classifier(config: ModelSection, label_names: Sequence[str], pad_token_id: int, seed: int) -> BaseModel:
    """The base in float32 with a head for these labels. A new head's values depend on the seed alone."""
    with _loading(config), torch.random.fork_rng():
        torch.manual_seed(seed)
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            embedded.resolve(config.path, config.revision),
            revision=config.revision,
            trust_remote_code=config.trust_remote_code,
            dtype=torch.float32,
            id2label=dict(enumerate(label_names)),
            label2id={name: index for index, name in enumerate(label_names)},
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    model.config.pad_token_id = pad_token_id
    new = set(loading["missing_keys"]) | {name for name, *_ in loading["mismatched_keys"]}
    head = _head_modules(model)
    lacking = sorted(name for name in new if not _is_below(name, head))
    # An encoder saved without its pooler is common; one without layers is not a checkpoint of this model.
    poolers = sorted({name.rpartition(".pooler.")[0] + ".pooler" for name in lacking if ".pooler." in name})
    broken = [name for name in lacking if not _is_below(name, poolers)]
    if broken:
        shown = ", ".join(broken[:5]) + (f" and {len(broken) - 5} more" if len(broken) > 5 else "")
        raise ModelError(Problem("model.path", f"weights are missing in {config.path}: {shown}"))
    head += poolers
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if name in new}
    return BaseModel(model, head, list(sizes), sum(sizes.values()), _fingerprint(model, head))


def _head_modules(model: Any) -> list[str]:
    """The children that stand beside the base model and have parameters."""
    return [
        name
        for name, child in model.named_children()
        if name != model.base_model_prefix and any(True for _ in child.parameters())
    ]


def _is_below(name: str, modules: Sequence[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _fingerprint(model: Any, head: Sequence[str], samples: int = 64) -> str:
    """sha256 over names, shapes and evenly spaced values of the base's parameters."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if not _is_below(name, head):
            values = parameter.detach().flatten()
            digest.update(f"{name} {tuple(parameter.shape)}".encode())
            digest.update(values[:: max(1, values.numel() // samples)].contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _loading(config: ModelSection) -> Iterator[None]:
    """Quiet while loading (we say in one line what the library tells in a table), and clear when it fails."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise ModelError(_unloadable(config, error)) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _unloadable(config: ModelSection, error: Exception) -> Problem:
    path = Path(config.path)
    reason = str(error).strip().split("\n")[0]
    if path.is_dir() and not (path / "config.json").is_file():
        return Problem("model.path", f"no config.json in {path}: this folder holds no model", "give a model's folder")
    if path.is_dir():
        return Problem(
            "model.path",
            f"cannot load a model from {path}: {reason}",
            "it needs config.json, weights, tokenizer",
        )
    if path.is_absolute():
        return Problem("model.path", f"no such folder: {path}", "give a model's folder, minilm, or a hub name")
    message = f"'{config.path}' is no folder here, and it could not be loaded from the hub: {reason}"
    fix = "check the name and the network; without a network give the folder of a downloaded model, or use minilm"
    return Problem("model.path", message, fix)
