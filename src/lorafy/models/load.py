"""Base model and tokenizer, from a folder, the embedded package or the hub."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from ..config.schema import ModelSection
from ..quiet import quiet_transformers
from ..types import ModelError, Problem
from . import embedded

MAX_LENGTH = {"classification": 512, "causal_lm": 1_024}
"""Longest sequence where the recipe names none: attention's cost grows with its square."""
GENERATIVE = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""How the classes of models that write text are called."""
UNLIMITED = 1_000_000
"""A tokenizer that knows no limit says so by a huge model_max_length."""


@dataclass(frozen=True)
class BaseModel:
    """A pretrained model; one for classification has a head that may be new.

    `head`: names of its modules that are not the pretrained base (`classifier`, DistilBERT's `pre_classifier`...),
    and of base modules that the checkpoint lacks; none in a language model.
    `new_names`: the parameters that start at random, `new_parameters` their number of values.
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


def is_generative(config: ModelSection) -> bool:
    """Whether the model was pretrained to write text after text. Raises ModelError where it cannot be loaded."""
    model_config = _load_config(config)
    if model_config.architectures:
        return any(name.endswith(GENERATIVE) for name in model_config.architectures)
    kind = model_config.model_type
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def context_length(config: ModelSection, tokenizer: Any) -> int:
    """The most tokens that the model reads at once."""
    model_config = _load_config(config)
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length < UNLIMITED else []
    name = "max_position_embeddings"  # GPT-2 calls it n_positions, and has a table of such names
    positions = model_config.to_dict().get(model_config.attribute_map.get(name, name))
    if positions is not None:
        # RoBERTa's positions start behind the padding index: 514 positions hold 512 tokens.
        limits.append(
            positions - 2 if model_config.model_type in ("roberta", "xlm-roberta", "camembert") else positions
        )
    return min(limits, default=UNLIMITED)


def longest_text(config: ModelSection, tokenizer: Any, wanted: int | None, task: str = "classification") -> int:
    """The recipe's max_length, else the model's limit, at most MAX_LENGTH. Raises ModelError over the model's limit."""
    limit = context_length(config, tokenizer)
    if wanted is not None and wanted > limit:
        raise ModelError(Problem("data.max_length", f"{wanted} is over the limit of {config.path}: {limit} tokens"))
    return wanted or min(limit, MAX_LENGTH[task])


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
    _refuse_missing(config, [name for name in lacking if not _is_below(name, poolers)])
    head += poolers
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if name in new}
    return BaseModel(model, head, list(sizes), sum(sizes.values()), _fingerprint(model, head))


def load_language_model(config: ModelSection, vocab_size: int) -> BaseModel:
    """The base in float32, whole. `vocab_size`: the tokenizer's; the model's table of embeddings is never resized.

    Raises ModelError where weights are missing, or where the tokenizer knows tokens that the model does not.
    """
    with _loading(config):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            embedded.resolve(config.path, config.revision),
            revision=config.revision,
            trust_remote_code=config.trust_remote_code,
            dtype=torch.float32,
            output_loading_info=True,
        )
    model, loading = loaded
    _refuse_missing(config, sorted({*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])}))
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        message = f"{type(model).__name__} of {config.path} gives logits for all positions only"
        raise ModelError(Problem("model.path", message, "take GPT-2, OPT, Llama, Qwen, or most others"))
    rows = model.get_input_embeddings().weight.shape[0]
    if vocab_size > rows:
        message = f"the tokenizer has {vocab_size:,} tokens, the model of {config.path} knows {rows:,}"
        raise ModelError(Problem("model.path", message, "take the tokenizer that belongs to this model"))
    return BaseModel(model, [], [], 0, _fingerprint(model, []))


def twins(model: Any, token_id: int) -> int:
    """How many other tokens have the output weights of this one (cosine above 0.99): tokens that pretraining never
    showed end up alike, and no hidden state can mean one of them alone."""
    table = model.get_output_embeddings().weight.detach().float()
    cosines = torch.nn.functional.cosine_similarity(table, table[token_id][None])
    return int((cosines > 0.99).sum()) - 1


def _refuse_missing(config: ModelSection, names: Sequence[str]) -> None:
    if names:
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise ModelError(Problem("model.path", f"weights are missing in {config.path}: {shown}"))


def _load_config(config: ModelSection) -> Any:
    with _loading(config):
        return AutoConfig.from_pretrained(
            embedded.resolve(config.path, config.revision),
            revision=config.revision,
            trust_remote_code=config.trust_remote_code,
        )


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
    try:
        with quiet_transformers():
            yield
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise ModelError(_unloadable(config, error)) from error


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
