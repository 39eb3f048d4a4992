"""A base whose frozen linear layers lie in memory in 4 or 8 bits (`model.quantise`), for QLoRA (Dettmers et al. 2023).

transformers reads one tensor after the other and quantises it at once, so that the model is never whole in a wider
dtype. Everything else is held as in a base that is not quantised: head, output layer, embeddings, norms, biases.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, FineGrainedFP8Config
from transformers.pytorch_utils import Conv1D
from transformers.utils import is_bitsandbytes_available

from ..config.schema import ModelSection
from ..kernels.packed import is_packed, packed_layers
from ..types import ModelError, Problem
from .precision import choose_device, choose_precision

KEY = "model.quantise"
LEAST_VERSION = "0.48.0"
"""The bitsandbytes from which on an int8 model may move to another device."""


HELD = (torch.float32, torch.bfloat16, torch.float16)
"""What may be rounded to another of them. Anything else is quantised."""


@dataclass(frozen=True)
class Packed:
    """What is quantised of a model: `num_values` in `num_layers` layers, `num_bytes` with their scales."""

    form: str
    num_layers: int
    num_values: int
    num_bytes: int

    @property
    def share(self) -> float:
        """Of the bytes that bfloat16 takes."""
        return self.num_bytes / (2 * self.num_values)


def require_package() -> None:
    """Raises ModelError with the line that installs bitsandbytes."""
    if not is_bitsandbytes_available(LEAST_VERSION):
        message = f"needs bitsandbytes {LEAST_VERSION} or newer, which is not installed"
        raise ModelError(Problem(KEY, message, 'pip install "lorafy[quantise]"'))


def loading_settings(section: ModelSection, skeleton: Any, kept: Sequence[str]) -> dict[str, Any]:
    """Arguments of from_pretrained. skeleton: the model without values. kept: modules that are not to be quantised,
    beside the output layer."""
    if section.quantise is None:
        return {}
    names = {module: name for name, module in skeleton.named_modules()}
    output_layer = skeleton.get_output_embeddings()
    whole = [*kept, *([] if output_layer is None else [names[output_layer]])]
    # Patterns that match these modules and what is in them: transformers takes a bare name for the end of others too.
    skipped = [rf"{re.escape(name)}(\..*)?$" for name in whole] or ["$"]  # an empty list means a choice of its own
    compute_dtype = choose_precision(section.dtype, choose_device()).dtype
    four_bits: Mapping[str, Any] = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": section.quantise,
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": compute_dtype,
    }
    bits: Mapping[str, Any] = {"load_in_8bit": True} if section.quantise == "int8" else four_bits
    settings = BitsAndBytesConfig(**bits, llm_int8_skip_modules=skipped)
    return {"quantization_config": settings, "device_map": {"": "cpu"}}


def take_layers(model: Any, section: ModelSection) -> None:
    """Puts layers with one forward pass in the place of bitsandbytes' own; their weights stay.

    Raises ModelError for weights that another package keeps in a dtype of its own.
    """
    strange = sorted({str(p.dtype) for p in model.parameters() if p.is_floating_point() and p.dtype not in HELD})
    if strange:
        message = f"{section.path} keeps weights in {', '.join(strange)}, which mean nothing without their scales"
        raise ModelError(Problem("model.path", message, "take the model that it was made of"))
    if not is_packed(model):
        return
    from ..kernels.quantised import KINDS

    for name, module in list(model.named_modules()):
        kind = KINDS.get(type(module))
        if kind is not None:
            model.set_submodule(name, kind.of(module))


def measure(model: Any) -> Packed | None:
    """None where nothing is quantised."""
    layers = packed_layers(model).values()
    if not layers:
        return None
    forms = ", ".join(sorted({layer.form for layer in layers}))
    num_values = sum(layer.in_features * layer.out_features for layer in layers)
    tensors = [tensor for layer in layers for tensor in (layer.weight.data, *layer.scales)]
    return Packed(forms, len(layers), num_values, sum(tensor.nbytes for tensor in tensors))


def dequantise(model: Any) -> None:
    """Makes it an ordinary model in float32, in place, with the values that the quantised one computes with."""
    model.hf_quantizer.remove_quantization_config(model)
    model.is_loaded_in_4bit = model.is_loaded_in_8bit = False  # peft asks for them
    with torch.device("meta"):
        skeleton = type(model)(model.config)  # knows of what kind each layer was
    for name, layer in packed_layers(model).items():
        weight = layer.weight_in(torch.float32)
        with torch.device("meta"):
            whole: Any = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
            if isinstance(skeleton.get_submodule(name), Conv1D):  # GPT-2 keeps its weights the other way round
                whole, weight = Conv1D(layer.out_features, layer.in_features), weight.T.contiguous()
        whole.weight = nn.Parameter(weight, requires_grad=False)
        if layer.bias is not None:
            whole.bias = layer.bias
        model.set_submodule(name, whole)


def refuse_twice(section: ModelSection, stored: str | None) -> None:
    """Raises ModelError for a folder that is quantised already. stored: how."""
    if stored is not None:
        message = f"{section.path} is quantised already ({stored})"
        raise ModelError(Problem(KEY, message, "remove model.quantise, or take the model that it was made of"))


def stored_settings(stored: str | None) -> dict[str, Any]:
    """Arguments of from_pretrained for a folder that is quantised already. stored: how."""
    # On a CPU transformers gives fp8 back in a wider dtype by itself; here it does so on every machine.
    return {"quantization_config": FineGrainedFP8Config(dequantize=True)} if stored == "fp8" else {}


def stored_form(config: Any) -> str | None:
    """How a model's folder is quantised already, by its config: `gptq`, `awq`, `fp8`, `bitsandbytes` ...; else None."""
    settings = config.to_dict().get("quantization_config")
    return None if settings is None else str(settings.get("quant_method", "in an unknown way"))
