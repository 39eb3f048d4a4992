"""Base model and tokenizer, from a folder, the embedded package or the hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
)

from ..config.schema import ModelSection
from ..kernels.packed import packed_layers
from ..machine.quiet import quiet_transformers
from ..types import ModelError, Problem
from . import embedded
from .parts import Parts
from .quantise import loading_settings, refuse_twice, require_package, stored_form, stored_settings, take_layers
from .shelf import Shelf, own

TRUST_FIX = (
    "read that code; to run it: model.trust_remote_code=true on the command line (predict: --trust-remote-code), or in "
    "your recipe. What comes with a model, an adapter or a run has no say in this"
)
UNLIMITED = 1_000_000
"""Tokens. A tokenizer that knows no limit says so by a model_max_length of this or more."""


@dataclass(frozen=True)
class BaseModel:
    """A pretrained model; one that reads whole texts has a head, which may be new.

    `head`: names of its modules that are not the pretrained base (`classifier`, DistilBERT's `pre_classifier`...),
    and of base modules that the checkpoint lacks; none in a language model.
    `new_names`: the parameters that start at random, `new_parameters` their number of values.
    `fingerprint`: sha256 over samples of the base's weights, to notice an adapter put on another base.
    `parts`: None where it is of one part.
    """

    model: Any
    head: list[str]
    new_names: list[str]
    new_parameters: int
    fingerprint: str
    parts: Parts | None = None


@dataclass(frozen=True)
class Source:
    """A model's folder or hub name, opened: its config.json is read once, its tokenizer when it is first asked for.

    tokenizer_folder: where what was trained keeps its own tokenizer.
    """

    section: ModelSection
    config: Any
    tokenizer_folder: Path | None = None

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer, which pads on the right. Raises ModelError where it cannot be loaded."""
        tokenizer = _load_tokenizer(self._place)
        if tokenizer.chat_template is None and self.sees:  # some keep it with the processor
            content = self.companion("chat_template.json")
            tokenizer.chat_template = None if content is None else json.loads(content).get("chat_template")
        return tokenizer

    @property
    def _place(self) -> ModelSection:
        """Where tokenizer and processor lie."""
        own = self.tokenizer_folder
        return self.section if own is None else self.section.model_copy(update={"path": str(own), "revision": None})

    def companion(self, name: str) -> str | None:
        """A text file that lies beside the tokenizer; None where there is none."""
        place = self._place
        path = Path(place.path) / name
        try:
            if not path.parent.is_dir():
                path = Path(hf_hub_download(place.path, name, revision=place.revision))
            return path.read_text(encoding="utf-8") if path.is_file() else None
        except (OSError, ValueError):  # it is not there, or the hub cannot be reached
            return None

    @property
    def sees(self) -> bool:
        """Whether the model has a part that looks at pictures."""
        return "vision_config" in self.config.to_dict()

    @cached_property
    def image_processor(self) -> Any:
        """transformers' image processor. Raises ModelError where it cannot be loaded."""
        return _load_image_processor(self._place)

    @property
    def context_length(self) -> int:
        """The most tokens that the model reads at once."""
        limits = [self.tokenizer.model_max_length] if self.tokenizer.model_max_length < UNLIMITED else []
        name = "max_position_embeddings"  # GPT-2 calls it n_positions, and has a table of such names
        config = self.config.get_text_config()
        positions = config.to_dict().get(config.attribute_map.get(name, name))
        if positions is not None:
            # RoBERTa's positions start behind the padding index: 514 positions hold 512 tokens.
            behind_padding = self.config.model_type in ("roberta", "xlm-roberta", "camembert")
            limits.append(positions - 2 if behind_padding else positions)
        return min(limits, default=UNLIMITED)

    def longest(self, wanted: int | None, default: int) -> int:
        """The longest sequence in tokens: the recipe's max_length, else the model's limit, at most `default`. Raises
        ModelError over the limit."""
        limit = self.context_length
        if wanted is not None and wanted > limit:
            message = f"{wanted} is over the limit of {self.section.path}: {limit} tokens"
            raise ModelError(Problem("data.max_length", message))
        return wanted or min(limit, default)


def open_source(section: ModelSection, tokenizer_folder: Path | None = None) -> Source:
    """Opens the model that a model section names. Raises ModelError where there is no config to read, or where it
    cannot be quantised as the section says."""
    with _loading(section):
        config = AutoConfig.from_pretrained(
            embedded.resolve(section.path, section.revision),
            revision=section.revision,
            trust_remote_code=section.trust_remote_code,
        )
    _refuse_kernels_of_the_hub(section, config)
    if section.quantise is not None:
        refuse_twice(section, stored_form(config))
        require_package()
    return Source(section, config, tokenizer_folder)


def _refuse_kernels_of_the_hub(section: ModelSection, config: Any) -> None:
    """transformers fetches and runs code for an attention that a config.json names like a repository."""
    parts = [config, *(getattr(config, name, None) for name in config.sub_configs)]
    named = {str(part._attn_implementation) for part in parts if isinstance(part, PreTrainedConfig)}
    wanted = sorted(name for name in named if "/" in name)
    if wanted and not section.trust_remote_code:
        message = f"its config.json asks to run attention code from the hub: {', '.join(wanted)}"
        raise ModelError(Problem(section.path, message, "remove attn_implementation from its config.json"))


def _load_tokenizer(section: ModelSection) -> Any:
    with _loading(section):
        tokenizer = AutoTokenizer.from_pretrained(
            embedded.resolve(section.path, section.revision),
            revision=section.revision,
            trust_remote_code=section.trust_remote_code,
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            message = f"the tokenizer of {section.path} has neither a padding token nor an end token"
            raise ModelError(Problem("model.path", message, "set pad_token in its tokenizer_config.json"))
        tokenizer.pad_token = tokenizer.eos_token  # padding is masked by position: no text loses its end by it
    tokenizer.padding_side = "right"
    return tokenizer


def _load_image_processor(section: ModelSection) -> Any:
    with _loading(section):
        return AutoImageProcessor.from_pretrained(
            section.path,
            revision=section.revision,
            trust_remote_code=section.trust_remote_code,
            backend="pil",  # torchvision rounds otherwise, and is not needed: the same numbers on every machine
        )


def load_with_head(
    config: ModelSection, head: Mapping[str, Any], pad_token_id: int, seed: int, shelf: Shelf | None = None
) -> BaseModel:
    """The base in float32 with a head that reads a whole text. A new head's values depend on the seed alone.

    head: what the model's config says of it, such as id2label. shelf: where the base's weights may be already.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, loading = _from_pretrained(
            config, AutoModelForSequenceClassification, head, shelf, ignore_mismatched_sizes=True
        )
    model.config.pad_token_id = pad_token_id
    new = set(loading["missing_keys"]) | {name for name, *_ in loading["mismatched_keys"]}
    parts = _head_modules(model)
    lacking = sorted(name for name in new if not _is_below(name, parts))
    # An encoder saved without its pooler is common; one without layers is not a checkpoint of this model.
    poolers = sorted({name.rpartition(".pooler.")[0] + ".pooler" for name in lacking if ".pooler." in name})
    _refuse_missing(config, [name for name in lacking if not _is_below(name, poolers)])
    parts += poolers
    if shelf is not None:
        own(model, parts)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if name in new}
    return BaseModel(model, parts, list(sizes), sum(sizes.values()), _fingerprint(model, parts))


def load_whole(config: ModelSection, auto: Any, vocab_size: int, shelf: Shelf | None = None) -> BaseModel:
    """The base in float32, whole. auto: the class of transformers that makes it. vocab_size: the tokenizer's; the
    model's table of embeddings is never resized. shelf: where its weights may be already.

    Raises ModelError where weights are missing, or where the tokenizer knows tokens that the model does not.
    """
    model, loading = _from_pretrained(config, auto, {}, shelf)
    _refuse_missing(config, sorted({*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])}))
    rows = model.get_input_embeddings().weight.shape[0]
    if vocab_size > rows:
        message = f"the tokenizer has {vocab_size:,} tokens, the model of {config.path} knows {rows:,}"
        raise ModelError(Problem("model.path", message, "take the tokenizer that belongs to this model"))
    return BaseModel(model, [], [], 0, _fingerprint(model, []))


def _from_pretrained(
    section: ModelSection, auto: Any, settings: Mapping[str, Any], shelf: Shelf | None, **loading: Any
) -> Any:
    """auto's, in float32 but for what the section or the folder has quantised, and what transformers tells of the
    loading. settings: of the model's config. Raises ModelError."""
    place: dict[str, Any] = {"revision": section.revision, "trust_remote_code": section.trust_remote_code}
    path = embedded.resolve(section.path, section.revision)
    loading |= {"dtype": torch.float32, "output_loading_info": True}
    with _loading(section):
        config = AutoConfig.from_pretrained(path, **place, **settings)
        here = None if shelf is None else shelf.load(section, auto, config, **loading)
    if here is not None:
        return here
    stored = stored_form(config)
    with _loading(section, stored):
        skeleton = None if section.quantise is None else _skeleton(auto, config, section)
        kept = [] if skeleton is None else [*_head_modules(skeleton), *_poolers(skeleton)]
        packing = stored_settings(stored) if skeleton is None else loading_settings(section, skeleton, kept)
        loaded: Any = auto.from_pretrained(path, **place, **settings, **packing, **loading)
    model = loaded[0]
    take_layers(model, section)
    wrong = [name for name in packed_layers(model) if _is_below(name, kept)]
    assert not wrong, f"quantised, but it is trained: {wrong}"
    if shelf is not None:
        shelf.put(section, auto, loaded)
    return loaded


def _skeleton(auto: Any, config: Any, section: ModelSection) -> Any:
    """The model without values."""
    with torch.device("meta"):
        return auto.from_config(config, trust_remote_code=section.trust_remote_code)


def _poolers(model: Any) -> list[str]:
    """They are trained where the checkpoint lacks them."""
    return [name for name, _ in model.named_modules() if name.rpartition(".")[2] == "pooler"]


def twins(model: Any, token_id: int) -> list[int]:
    """The other tokens that have the output weights of this one (cosine above 0.99): tokens that pretraining never
    showed end up alike, and no hidden state can mean one of them alone."""
    table = model.get_output_embeddings().weight.detach().float()
    cosines = torch.nn.functional.cosine_similarity(table, table[token_id][None])
    cosines[token_id] = 0.0  # itself, or nothing like it where its row is zero, as a padding token's may be
    return (cosines > 0.99).nonzero().flatten().tolist()


def _refuse_missing(config: ModelSection, names: Sequence[str]) -> None:
    if names:
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise ModelError(Problem("model.path", f"weights are missing in {config.path}: {shown}"))


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
    """sha256 over names, shapes and evenly spaced values of the base's parameters; of quantised layers over how
    they are quantised, their bytes and scales."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if not _is_below(name, head):
            values = parameter.detach().flatten()
            digest.update(f"{name} {tuple(parameter.shape)}".encode())
            digest.update(values[:: max(1, values.numel() // samples)].contiguous().numpy().tobytes())
    for name, layer in sorted(packed_layers(model).items()):
        digest.update(f"{name} {layer.form}".encode())
        for scales in layer.scales:
            digest.update(scales[:: max(1, scales.numel() // samples)].contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _loading(config: ModelSection, stored: str | None = None) -> Iterator[None]:
    """Keeps the library quiet (we say in one line what it tells in a table), and clear where loading fails. stored: how
    the folder is quantised already."""
    try:
        with quiet_transformers():
            yield
    except (OSError, ValueError, ImportError, SafetensorError, UnpicklingError) as error:
        raise ModelError(
            _unloadable(config, error) if stored is None else _packed_elsewhere(config, stored, error)
        ) from error
    except RuntimeError as error:  # what unpacks the weights, of a device that it wants or a shape
        if stored is None:
            raise
        raise ModelError(_packed_elsewhere(config, stored, error)) from error


def _packed_elsewhere(config: ModelSection, stored: str, error: Exception) -> Problem:
    """Why a folder that is quantised already cannot be loaded."""
    reason = str(error).strip().split("\n")[0]
    message = f"{config.path} is quantised already ({stored}), and transformers cannot load that here: {reason}"
    fix = "install what it asks for, or take the model that it was made of, with model.quantise=nf4"
    return Problem("model.path", message, fix)


def _unloadable(config: ModelSection, error: Exception) -> Problem:
    path = Path(config.path)
    reason = str(error).strip().split("\n")[0]
    if "trust_remote_code" in str(error) and not config.trust_remote_code:
        message = f"{config.path} carries Python code that would have to run, and nobody here said that it may"
        return Problem("model.trust_remote_code", message, TRUST_FIX)
    if isinstance(error, UnpicklingError):
        message = f"the weights of {config.path} are a pickle that holds more than tensors, which is not read"
        return Problem("model.path", message, "take the model from where it has safetensors")
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
