"""LoRA adapters of one base as a weighted sum, by peft's `add_weighted_adapter`; what they trained whole: averaged."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from ..run_directory import read_json
from ..types import ConfigError, Problem
from .parts import PEFT_PREFIX

EXACT = "cat"
OF_EQUAL_RANKS = ("linear", "ties", "dare_linear", "dare_ties", "magnitude_prune")
"""They work on all A and on all B, each by itself."""
OF_PRODUCTS = ("svd", "ties_svd", "dare_linear_svd", "dare_ties_svd", "magnitude_prune_svd")
"""They work on B A of each layer, and decompose the sum."""
METHODS = (EXACT, *OF_PRODUCTS, *OF_EQUAL_RANKS)
PRUNING = ("ties", "dare", "magnitude")
"""Beginnings of those that keep a share of the values, the density."""
RANDOM = "dare"
"""Beginning of those that draw which ones."""

NO_SUM = {
    "use_dora": "DoRA divides by the length of W + B A, so that two of them have no sum",
    "lora_bias": "its B has a bias, which peft would leave out",
    "target_parameters": "it lies on parameters that are no layers, which peft does not add up",
    "use_qalora": "QALoRA's layers group their inputs, which peft does not add up",
    "kasa_config": "KaSA changed the base's weights",
}
"""Settings of peft's LoRA under which B A is not all of what an adapter adds, of those that are loaded at all."""

DELTA = ".trainable_tokens_delta"
"""End of the name of trained rows of a table."""


@dataclass(frozen=True)
class Part:
    """An adapter's folder under its name, with its weight in the sum."""

    name: str
    folder: Path
    weight: float
    config: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]

    @property
    def whole(self) -> dict[str, torch.Tensor]:
        """What is no LoRA: modules that were trained whole (a head), rows of tables."""
        return {name: tensor for name, tensor in self.tensors.items() if "lora_" not in name}

    @property
    def ranks(self) -> dict[str, int]:
        """The rank of each adapted layer, by its name in the base."""
        of_a = {name: tensor for name, tensor in self.tensors.items() if ".lora_A." in name}
        return {name.partition(".lora_A.")[0].removeprefix(PEFT_PREFIX): len(A) for name, A in of_a.items()}


def read_part(name: str, folder: Path, weight: float, weights_file: str) -> Part:
    """The files of an adapter that leaves its base as it was. Raises ConfigError where it has no sum with others."""
    path = folder / "adapter_config.json"
    settings = read_json(path) if path.is_file() else {}
    kind = settings.get("peft_type")
    where = f"adapters.{name}"
    if kind != "LORA":
        what = f"it is of peft's {kind}" if kind else "it is no adapter but a trained head"
        fix = "train it with LoRA, rsLoRA, PiSSA or OLoRA, or use it beside the others with --adapter"
        raise ConfigError(Problem(where, f"{what}, and only LoRA can be added up", fix))
    reasons = [reason for key, reason in NO_SUM.items() if settings.get(key)]
    if reasons:
        raise ConfigError([Problem(where, reason, "use it beside the others with --adapter") for reason in reasons])
    return Part(name, folder, weight, settings, load_file(folder / weights_file))


def misfits(parts: Sequence[Part], method: str) -> list[Problem]:
    """Why these cannot be added up so."""
    problems = []
    first, *others = parts
    shapes = {name: tensor.shape for name, tensor in first.whole.items()}
    for part in others:
        own = {name: tensor.shape for name, tensor in part.whole.items()}
        rows = part.config.get("trainable_token_indices") == first.config.get("trainable_token_indices")
        if own != shapes or not rows:
            names = [name for name, _ in sorted(own.items() ^ shapes.items())] or ["trainable_token_indices"]
            message = f"{part.name} and {first.name} trained different things beside LoRA: {names[0]}"
            problems.append(Problem(f"adapters.{part.name}", message, "train both with the same modules_to_save"))
    if shapes and sum(part.weight for part in parts) <= 0:
        message = "what was trained whole (a head) is averaged by them, and their sum is not above 0"
        problems.append(Problem("--weights", message, "raise one of them"))
    if method in OF_EQUAL_RANKS:
        for part in others:
            common = part.ranks.keys() & first.ranks.keys()
            unequal = sorted(name for name in common if part.ranks[name] != first.ranks[name])
            if unequal:
                name = unequal[0]
                message = f"{name} has rank {part.ranks[name]} in {part.name}, {first.ranks[name]} in {first.name}"
                fix = f"{method} adds A to A and B to B, of equal ranks: use --method {EXACT} or svd"
                problems.append(Problem("--method", message, fix))
    kinds = {isinstance(part.config.get("target_modules"), str) for part in parts}
    if len(kinds) > 1:
        message = "one adapter names its layers by a pattern, another by a list, and peft does not join these"
        problems.append(Problem("adapters", message, "train both with the same adapter.target_modules"))
    return problems


def combine_parts(
    base: Any, parts: Sequence[Part], method: str, *, density: float | None, rank: int | None, seed: int, folder: Path
) -> Any:
    """Writes the sum into `folder` in peft's format, and gives the model in memory: `base`, which is changed, with the
    sum on it."""
    names = [f"part_{number}" for number in range(len(parts))]
    model: Any = None
    for name, part in zip(names, parts, strict=True):
        config = _lora_alone(part)
        with warnings.catch_warnings():  # of transformers, about peft
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            if model is None:
                model = PeftModel(base, config, name)
            else:
                model.add_adapter(name, config)
        lora = {key: tensor for key, tensor in part.tensors.items() if "lora_" in key}
        set_peft_model_state_dict(model, lora, name)
    weights = [part.weight for part in parts]
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # of dare's draws
        model.base_model.add_weighted_adapter(
            names, weights, "default", combination_type=method, svd_rank=rank, density=density, svd_full_matrices=False
        )
    model.set_adapter("default")
    whole = _averaged(parts)
    _put(base, whole, parts[0].config)
    tensors = get_peft_model_state_dict(model, adapter_name="default", save_embedding_layers=False) | whole
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(plain, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    _config_of(model, parts[0], plain).save_pretrained(str(folder))
    for name in names:
        model.delete_adapter(name)
    return model.eval()


def _lora_alone(part: Part) -> LoraConfig:
    """The part's config without what it trained whole, of which peft holds one copy an adapter and adds up none."""
    config: Any = LoraConfig.from_pretrained(str(part.folder))
    config.modules_to_save = config.trainable_token_indices = None
    config.ensure_weight_tying = False
    config.bias = LoraConfig().bias
    return config


def _averaged(parts: Sequence[Part]) -> dict[str, torch.Tensor]:
    """sum of w t over the sum of w: two heads added up would say everything twice."""
    total = sum(part.weight for part in parts)
    return {
        name: torch.stack([part.weight / total * part.tensors[name].double() for part in parts]).sum(0).to(tensor.dtype)
        for name, tensor in parts[0].whole.items()
    }


@torch.no_grad()
def _put(base: Any, whole: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> None:
    """Writes these values into the base, whose names peft wrapped."""
    own = {_bare(name): parameter for name, parameter in base.named_parameters()}
    rows = settings.get("trainable_token_indices") or {}
    for name, tensor in whole.items():
        bare = name.removeprefix(PEFT_PREFIX)
        if name.endswith(DELTA):
            module = bare.removesuffix(DELTA).removesuffix(".token_adapter")
            indices = rows[module] if isinstance(rows, dict) else rows
            own[f"{module}.weight"][indices] = tensor.to(own[f"{module}.weight"])
        else:
            own[bare].copy_(tensor)


def _bare(name: str) -> str:
    return name.replace(".base_layer", "")


def _config_of(model: Any, first: Part, tensors: Mapping[str, torch.Tensor]) -> LoraConfig:
    """peft's config of the sum: the scale of every layer is 1, whatever its rank."""
    config = copy.deepcopy(model.peft_config["default"])
    written = Part("", first.folder, 1.0, {}, tensors).ranks
    config.rank_pattern = {name: rank for name, rank in written.items() if rank != config.r}
    config.alpha_pattern = dict(config.rank_pattern)
    config.lora_alpha, config.use_rslora, config.init_lora_weights = config.r, False, True
    for key in ("modules_to_save", "trainable_token_indices", "ensure_weight_tying", "bias"):
        setattr(config, key, first.config.get(key, getattr(config, key)))
    config.base_model_name_or_path = first.config.get("base_model_name_or_path")
    config.inference_mode = True
    return config
