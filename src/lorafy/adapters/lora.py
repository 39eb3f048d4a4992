"""LoRA (Hu et al. 2021, section 4.1) through peft: W x + (alpha / r) B A x, A random, B zero, W frozen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peft import LoraConfig, TaskType, get_peft_model
from transformers.pytorch_utils import Conv1D

from ..config.schema import AdapterSection
from ..kernels.peft_layer import LAYERS
from .files import quiet_peft
from .targets import find_targets, shortest_names


def attach(model: Any, config: AdapterSection, head: Sequence[str], base_name: str) -> Any:
    """Wraps the target layers. Trained are A, B and the whole head (a language model has none); biases stay frozen."""
    targets = find_targets(model, config.target_modules, head)
    # peft copies each head module (modules_to_save) and freezes the rest.
    peft_config = LoraConfig(
        task_type=TaskType.SEQ_CLS if head else TaskType.CAUSAL_LM,
        r=config.r,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # peft computes with any number
        lora_dropout=config.dropout,
        target_modules=shortest_names(model, targets),
        modules_to_save=list(head) or None,
        fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in targets),  # GPT-2's W is (in, out)
        bias="none",
    )
    peft_config._register_custom_module(LAYERS)  # peft's only door for a layer class of one's own
    with quiet_peft():
        peft_model = get_peft_model(model, peft_config)
    peft_model.peft_config["default"].base_model_name_or_path = base_name
    return peft_model
