"""LoRA (Hu et al. 2021, section 4.1) through peft: W x + (alpha / r) B A x, A random, B zero, W frozen."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, TaskType, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from transformers.pytorch_utils import Conv1D

from ..contracts import AdapterMethod, Attached, Attachment
from ..kernels.peft_layer import LAYERS
from ..machine.quiet import quiet_transformers
from ..models.targets import find_targets, group_targets, peft_targets
from ..models.trained_files import require_equal, tensor_names
from ..run_directory import read_json
from ..types import ModelError, Problem

ELSEWHERE = ("adapters", "shadow_model", "prompt_tuning_init_state_dict_path", "megatron_config")
"""Settings of peft that name further models or files to load, or have it import a package."""


class Lora(AdapterMethod):
    """See `AdapterMethod`. Trained are A, B and the whole head (a language model has none); biases stay frozen."""

    title = "LoRA"
    learning_rate = 5e-4  # ten times full fine-tuning's ("LoRA Without Regret", Schulman et al. 2025)
    folder = "adapter"
    weights = "adapter_model.safetensors"
    merges = True
    compare_order = 1

    def claims(self, folder: Path) -> bool:
        """peft's folders, of all its methods."""
        return (folder / "adapter_config.json").is_file()

    def attach(self, model: Any, request: Attachment) -> Attached:
        """Wraps the target layers."""
        config, head = request.config, request.head
        targets = find_targets(model, config.target_modules, head, request.parts)
        groups = group_targets(model, targets, request.parts)
        # peft copies each head module (modules_to_save) and freezes the rest.
        peft_config = LoraConfig(
            task_type=TaskType(request.task_type),
            r=config.r,
            lora_alpha=config.alpha,  # type: ignore[arg-type]  # peft computes with any number
            lora_dropout=config.dropout,
            target_modules=peft_targets(model, targets),
            modules_to_save=list(head) or None,
            fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in targets),  # GPT-2: (in, out)
            bias="none",
        )
        peft_config._register_custom_module(LAYERS)  # peft's only door for a layer class of one's own
        with quiet_peft():
            peft_model = get_peft_model(model, peft_config)
        peft_model.peft_config["default"].base_model_name_or_path = request.base_name
        return Attached(peft_model, groups)

    def save(self, model: Any, folder: Path, head: Sequence[str]) -> None:
        """Writes the adapter in peft's format."""
        with quiet_transformers():
            # No look at the hub for whether the vocabulary was resized: lorafy never resizes it.
            model.save_pretrained(folder, save_embedding_layers=False)

    def load(self, base: Any, folder: Path, head: Sequence[str]) -> Any:
        """The base with the adapter on it."""
        found = tensor_names(folder / self.weights)  # peft would take a pickle where there are no safetensors
        _refuse_other_places(folder)
        try:
            with quiet_peft():
                model = PeftModel.from_pretrained(base, str(folder))
        except KeyError as error:  # a tensor of a trained head, where peft only warns of A and B
            message = f"missing in this folder: {error.args[0]}"
            raise ModelError(Problem(str(folder), message, "copy it again, or train again")) from error
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            # torch says in the first line that something is wrong, in the next ones what.
            reason = "; ".join(line.strip() for line in str(error).splitlines()[:5])
            fix = "it was trained on another base than adapter_config.json names, or that base was changed since"
            raise ModelError(Problem(str(folder), f"this adapter does not fit its base: {reason}", fix)) from error
        expected = set(get_peft_model_state_dict(model, save_embedding_layers=False))
        require_equal(expected, found, folder)
        return model

    def merge(self, model: Any) -> Any:
        """W + (alpha / r) B A in every adapted layer, the adapter's modules gone."""
        if not isinstance(model, PeftModel):
            return model
        try:
            return model.merge_and_unload(safe_merge=True)
        except ValueError as error:  # peft found NaN or infinity
            message = f"this adapter holds values that are no numbers: {error}"
            raise ModelError(Problem("adapter", message, "train again with a lower train.learning_rate")) from error

    @contextmanager
    def as_base(self, model: Any, head: Sequence[str], load_base: Callable[[], Any]) -> Iterator[Any]:
        """The model with A and B switched off, its trained head in place."""
        _switch(model, False)
        try:
            yield model
        finally:
            _switch(model, True)


def _refuse_other_places(folder: Path) -> None:
    """Raises ModelError for an adapter_config.json whose adapter is more than the tensors beside it."""
    settings = read_json(folder / "adapter_config.json")
    named = [name for name in ELSEWHERE if settings.get(name) not in (None, "mirror")]
    if named:
        message = f"adapter_config.json lets peft load more than this folder: {', '.join(named)}"
        raise ModelError(Problem(str(folder), message, "lorafy loads adapters that are whole in their folder"))


def _switch(model: Any, enabled: bool) -> None:
    """Switches A and B on or off, nothing else: peft's disable_adapter would take the trained head out too."""
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.enable_adapters(enabled)


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Silences a deprecation that nobody here can act on, and a warning of what `Lora.load` refuses."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found missing adapter keys", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield


METHOD = Lora()
