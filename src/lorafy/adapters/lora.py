"""LoRA (Hu et al. 2021, section 4.1) through peft: W x + (alpha / r) B A x, A random, B zero, W frozen.

rsLoRA (Kalajdzievski 2023): alpha / sqrt(r). LoRA+ (Hayou et al. 2024): B learns at `lr_ratio` times the rate of A.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import Linear as PeftLinear
from peft.tuners.lora import LoraLayer
from peft.utils import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from safetensors import SafetensorError, safe_open
from transformers.pytorch_utils import Conv1D

from ..adapter_contract import AdapterMethod, Attached, Attachment, Form, ParameterGroup
from ..config.schema import AdapterSection
from ..kernels.packed import is_packed
from ..kernels.peft_layer import LAYERS
from ..machine.quiet import quiet_transformers
from ..models.chosen_layers import narrowed, require_ranks, whole_modules, without
from ..models.folding import fold_layers
from ..models.parts import PEFT_PREFIX
from ..models.targets import find_targets, group_targets, peft_targets
from ..models.token_rows import cannot_train, shares_weights, token_tables
from ..models.trained_files import require_equal, tensor_names
from ..run_directory import read_json
from ..types import ModelError, Problem

ELSEWHERE = ("adapters", "shadow_model", "prompt_tuning_init_state_dict_path", "megatron_config")
"""Settings of peft that name further models or files to load, or have it import a package."""

NO_MERGE = ("alora_invocation_tokens", "layer_replication", "arrow_config")
"""Settings of adapters that are no change of weights: peft applies them to some tokens, to layers that it repeats, or
chooses among several."""
MERGED_ALONE = "lorafy loads what can be merged; use it with peft itself"

STARTS_IN_BASE = ("pissa", "olora")
"""Beginnings of `init_lora_weights` for which peft takes A and B out of the base's weights, and again when it loads."""
LOST_STARTS = ("pissa_niter", "corda", "lora_ga", "loftq")
"""Those that cannot be taken out again from the adapter's folder alone: they were random, or came from data."""


@dataclass(frozen=True)
class Chosen:
    """What LoRA trains, by full names. whole: modules beside the head. rows: of tables, by their modules. notes: for
    the user."""

    targets: list[str]
    whole: list[str]
    rows: dict[str, list[int]]
    notes: Sequence[str] = ()


class Lora(AdapterMethod):
    """See `AdapterMethod`. Trained are A, B and the whole head (a language model has none); biases stay frozen."""

    title = "LoRA"
    learning_rate = 5e-4  # ten times full fine-tuning's ("LoRA Without Regret", Schulman et al. 2025)
    folder = "adapter"
    weights = "adapter_model.safetensors"
    merges = True
    variant: ClassVar[Mapping[str, Any]] = {}
    """What sets the method apart, as fields of peft's LoraConfig."""

    def claims(self, folder: Path) -> bool:
        """peft's folders, of all its methods."""
        return (folder / "adapter_config.json").is_file()

    def choose(self, model: Any, request: Attachment) -> Chosen:
        """What of the model is trained. Raises ModelError for what the recipe says of it and has no effect."""
        config, parts = request.config, request.parts
        targets = find_targets(model, config.target_modules, request.head, parts)
        is_named = isinstance(config.target_modules, list)
        whole: list[str] = []
        problems: list[Problem] = []
        try:
            whole = whole_modules(model, config.modules_to_save, request.head, targets, parts, named=is_named)
        except ModelError as error:
            problems += error.problems
        try:
            targets = narrowed(without(targets, whole), config.exclude_modules, config.layers_to_transform)
            require_ranks(model, targets, config.r, config.rank_pattern, config.alpha_pattern)
        except ModelError as error:
            problems += error.problems
        wanted = config.trainable_token_indices
        rows = token_tables(model, request.unlearned_tokens if wanted == "auto" else wanted or [])
        reasons = cannot_train(model, rows, whole, parts)
        if wanted != "auto":
            problems += reasons
        if problems:
            raise ModelError(problems)
        if reasons:
            why = "; ".join(reason.message for reason in reasons)
            return Chosen(targets, whole, {}, [f"rows of tokens that pretraining never showed are not trained: {why}"])
        return Chosen(targets, whole, rows)

    def attach(self, model: Any, request: Attachment) -> Attached:
        """Wraps the target layers."""
        config, chosen = request.config, self.choose(model, request)
        groups = group_targets(model, chosen.targets, request.parts)
        with quiet_peft():
            peft_config = LoraConfig(
                r=config.r,
                use_rslora=config.use_rslora,
                rank_pattern=dict(config.rank_pattern),
                alpha_pattern=dict(config.alpha_pattern),
                **peft_settings(model, request, chosen),
                **self.variant,
            )
            if not is_packed(model):  # peft has layers for those, and a packed nn.Linear would be taken for a whole one
                peft_config._register_custom_module(LAYERS)  # peft's only door for a layer class of one's own
            peft_model = get_peft_model(model, peft_config)
        peft_model.peft_config["default"].base_model_name_or_path = request.base_name
        return Attached(peft_model, groups, chosen.notes)

    def parameter_groups(self, model: Any, config: AdapterSection) -> list[ParameterGroup]:
        """B apart from all else where it learns at another rate."""
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        of_b = [parameter for name, parameter in trained.items() if ".lora_B." in name]
        others = [parameter for name, parameter in trained.items() if ".lora_B." not in name]
        if config.lr_ratio == 1:
            return [ParameterGroup(list(trained.values()))]
        return [ParameterGroup(others), ParameterGroup(of_b, config.lr_ratio)]

    def save(self, model: Any, folder: Path, head: Sequence[str]) -> None:
        """Writes the adapter in peft's format."""
        with quiet_transformers():
            # No look at the hub for whether the vocabulary was resized: lorafy never resizes it.
            model.save_pretrained(folder, save_embedding_layers=False)

    def load(self, base: Any, folder: Path, head: Sequence[str]) -> Any:
        """The base with the adapter on it."""
        found = tensor_names(folder / self.weights)  # peft would take a pickle where there are no safetensors
        _refuse_what_is_not_here(folder)
        tables = [name for name in found if name.endswith(".base_layer.weight")]
        _require_same_tables(base, folder / self.weights, tables)
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
        _refuse_what_cannot_merge(model, folder)
        expected = set(get_peft_model_state_dict(model, save_embedding_layers=False))
        require_equal(expected, found - set(tables), folder)
        return model

    def merge(self, model: Any) -> Any:
        """W + (alpha / r) B A in every adapted layer, the adapter's modules gone."""
        if not isinstance(model, PeftModel):
            return model
        try:
            return model.merge_and_unload(safe_merge=True)
        except ValueError as error:
            raise _no_numbers(error) from error

    def fold(self, model: Any) -> None:
        """See `fold_layers`."""
        try:
            fold_layers(model)
        except ValueError as error:
            raise _no_numbers(error) from error

    @contextmanager
    def as_base(self, model: Any, head: Sequence[str], load_base: Callable[[], Any]) -> Iterator[Any]:
        """The model with all that was trained switched off but its head; the base loaded again where another tool's
        adapter changed what lies below."""
        if _changed_base(model):
            base = load_base()
            for name in head:
                base.get_submodule(name).load_state_dict(_trained_module(model, name).state_dict())
            yield base
            return
        _switch(model, head, False)
        try:
            yield model
        finally:
            _switch(model, head, True)


def peft_settings(model: Any, request: Attachment, chosen: Chosen) -> dict[str, Any]:
    """What LoRA's and AdaLoRA's configs have in common."""
    config = request.config
    return {
        "task_type": TaskType(request.task_type),
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": peft_targets(model, chosen.targets),
        # peft copies these, the head among them, and freezes the rest.
        "modules_to_save": [*request.head, *chosen.whole] or None,
        "trainable_token_indices": chosen.rows or None,
        "ensure_weight_tying": shares_weights(model, chosen.whole),
        # GPT-2's layers keep their weight as (in, out).
        "fan_in_fan_out": any(isinstance(model.get_submodule(name), Conv1D) for name in chosen.targets),
        "bias": "none",
    }


def _no_numbers(error: ValueError) -> ModelError:
    """peft found NaN or infinity while it merged."""
    message = f"this adapter holds values that are no numbers: {error}"
    return ModelError(Problem("adapter", message, "train again with a lower train.learning_rate"))


def _refuse_what_is_not_here(folder: Path) -> None:
    """Raises ModelError for an adapter_config.json whose adapter is more than the tensors beside it."""
    settings = read_json(folder / "adapter_config.json")
    named = [name for name in ELSEWHERE if settings.get(name) not in (None, "mirror")]
    if named:
        message = f"adapter_config.json lets peft load more than this folder: {', '.join(named)}"
        raise ModelError(Problem(str(folder), message, "lorafy loads adapters that are whole in their folder"))
    unlike = [name for name in NO_MERGE if settings.get(name)]
    if unlike:
        message = f"adapter_config.json says {', '.join(unlike)}: no weights compute the same as this adapter"
        raise ModelError(Problem(str(folder), message, MERGED_ALONE))
    start = str(settings.get("init_lora_weights"))
    if start.startswith(LOST_STARTS):
        message = f"it was trained on a base that its start ({start}) changed, and that change is not in this folder"
        fix = "save it again with peft's path_initial_model_for_weight_conversion: then it fits the unchanged base"
        raise ModelError(Problem(str(folder), message, fix))


def _refuse_what_cannot_merge(model: Any, folder: Path) -> None:
    """Raises ModelError for an adapter whose values have no place in the weights of its base."""
    message = None
    if model.active_peft_config.is_prompt_learning:
        message = f"{model.peft_type.value} trains what is put before a text: no weights compute the same"
    for name, module in model.named_modules():
        if isinstance(module, PeftLinear) and any(module.lora_bias.values()) and module.get_base_layer().bias is None:
            message = f"lora_bias trains a bias of {name.removeprefix(PEFT_PREFIX)}, which has none of its own"
            break
    if message is not None:
        raise ModelError(Problem(str(folder), message, MERGED_ALONE))


def _require_same_tables(base: Any, file: Path, names: Sequence[str]) -> None:
    """Raises ModelError for embeddings or an output layer, saved by peft where it got LoRA, that is not the base's."""
    with safe_open(file, framework="pt") as tensors:
        for name in names:
            layer = name.removeprefix(PEFT_PREFIX).removesuffix(".base_layer.weight")
            own, theirs = dict(base.named_modules()).get(layer), tensors.get_tensor(name)
            if own is None or own.weight.shape != theirs.shape or not torch.equal(own.weight.to(theirs), theirs):
                message = f"it carries a table of its own, {layer}, that is not the base's"
                fix = "merge it with peft into the base that it was trained on, and name that model"
                raise ModelError(Problem(str(file.parent), message, fix))


def _changed_base(model: Any) -> bool:
    """Whether the weights below the adapter are not the base's."""
    config = model.peft_config["default"]
    if not isinstance(config, LoraConfig):  # another method of peft's, which cannot be switched off layer by layer
        return True
    start = str(config.init_lora_weights)
    return config.bias != "none" or start.startswith(STARTS_IN_BASE) or config.kasa_config is not None


def _trained_module(model: Any, name: str) -> Any:
    """A module of the head as it was trained."""
    module = model.get_base_model().get_submodule(name)
    return module.modules_to_save["default"] if isinstance(module, ModulesToSaveWrapper) else module


def _switch(model: Any, head: Sequence[str], enabled: bool) -> None:
    """Switches on or off what was trained, without the head, which peft's disable_adapter would take out too."""
    for name, module in model.named_modules():
        is_head = name.removeprefix(PEFT_PREFIX) in head
        if isinstance(module, LoraLayer) or (isinstance(module, AuxiliaryTrainingWrapper) and not is_head):
            module.enable_adapters(enabled)


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Silences a deprecation that nobody here can act on, and warnings of what is refused or done here: `Lora.load`
    refuses missing tensors, `Pissa.save` converts any pattern."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using Rank-Stabilized LoRA with rank_pattern", category=UserWarning)
        # A quantised GPT-2's layers are Linear, the original's Conv1D; peft then sees which one it has.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to", category=UserWarning)
        warnings.filterwarnings("ignore", message="Found missing adapter keys", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield


class PlainLora(Lora):
    """LoRA itself."""

    compare_order = 1
    forms: Mapping[str, Form] = {
        "lora+": Form("LoRA+", {"lr_ratio": 16}),
        "rslora": Form("rsLoRA", {"use_rslora": True}),
        "qlora": Form("QLoRA", quantised=True),
    }


METHOD = PlainLora()
