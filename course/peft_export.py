"""Writes the LoRA of `lorafy.scratch` in peft's file format, so that everything that reads peft adapters reads it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from lorafy.scratch import equal_alpha, lora_layers, lora_state_dict

PREFIX = "base_model.model."
"""peft wraps the model twice, and the names in its files say so."""


def export_to_peft(
    model: nn.Module, folder: str | Path, also: Sequence[str] = (), base_model: str | None = None
) -> Path:
    """adapter_config.json and adapter_model.safetensors: `peft.PeftModel.from_pretrained(base, folder)` loads them.

    also: modules that were trained whole beside LoRA, the head for one; they are written too (peft: modules_to_save).
    base_model: the folder or hub name of the base, where it has one. ValueError where the layers differ in rank or
    alpha, where one of `also` has LoRA itself, or where there is no LoRA.
    """
    layers = dict(lora_layers(model))
    # peft knows the paper's convention only.
    settings = {
        (layer.lora.rank, equal_alpha(layer.lora.alpha, layer.lora.rank, layer.lora.convention, "paper"))
        for layer in layers.values()
    }
    if len(settings) != 1:
        raise ValueError(f"one rank and one alpha for all layers are needed, here are {sorted(settings)}")
    names = [name for name, _ in model.named_modules()]
    whole = [name for name in names if any(f".{name}".endswith(f".{each}") for each in also)]
    no_module = [each for each in also if not any(f".{name}".endswith(f".{each}") for name in whole)]
    if no_module:
        raise ValueError(f"no module of the model is called {no_module[0]}")
    both = [layer for layer in layers if any(f"{layer}.".startswith(f"{name}.") for name in whole)]
    if both:
        raise ValueError(f"{both[0]} has LoRA, so it cannot be saved whole: skip it in replace_linear_with_lora")
    [(rank, alpha)] = settings
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base_model,
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": sorted(layers),
        "modules_to_save": whole or None,
        "inference_mode": True,
    }
    tensors = {PREFIX + file_name(name): tensor.contiguous() for name, tensor in lora_state_dict(model, whole).items()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def file_name(name: str) -> str:
    """`blocks.0.attention.query.lora.lora_A` is `blocks.0.attention.query.lora_A.weight` to peft."""
    layer, mark, matrix = name.rpartition(".lora.lora_")
    return f"{layer}.lora_{matrix}.weight" if mark else name
