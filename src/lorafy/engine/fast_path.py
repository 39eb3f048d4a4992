"""A model that can be trained without padding, in few large products, and what it takes to get one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

import torch
from peft import PeftModel

from ..contracts import plugin_names
from ..kernels import compiled
from ..kernels.build import CannotBuild, load_library
from ..kernels.nouns import Linear
from ..kernels.peft_layer import FusedLinear
from ..types import Batch, Features, LossOutput
from .packed import cut, pack_sequences, pack_texts
from .weights import FLIPPED_PARAMETERS, Reader, Unsupported

PACKERS: dict[str, Callable[[Sequence[Features], Sequence[int], int | None], Batch]] = {
    "classification": pack_texts,
    "causal_lm": pack_sequences,
}


class Network(Protocol):
    """A forward pass over a model's own parameters."""

    def loss(self, ops: ModuleType, batch: Batch, recompute: bool = False) -> LossOutput: ...


@dataclass(frozen=True)
class FastPath:
    """Batches without padding and their loss.

    ops: the operations, compiled, or the reference in a test. max_examples: of a micro-batch. recompute: activation
    checkpointing.
    """

    network: Network
    task: str
    ops: ModuleType
    max_examples: int | None = None
    recompute: bool = False

    def batches(self, features: Sequence[Features], numbers: Sequence[int], seed: int | None) -> list[Batch]:
        """One step's examples as micro-batches. numbers: which examples of the training split they are. seed: decides
        the dropout masks, whatever the cut; None: nothing is dropped."""
        pack = PACKERS[self.task]
        runs = cut([len(feature) for feature in features], self.max_examples)
        return [pack([features[i] for i in run], [numbers[i] for i in run], seed) for run in runs]

    def loss(self, batch: Batch) -> LossOutput:
        """The SUM over targets, in fp32."""
        return self.network.loss(self.ops, batch, self.recompute)

    def checkpointed(self) -> FastPath:
        return replace(self, recompute=True)


def build_fast_path(
    model: Any, task: str, dtype: torch.dtype, device: torch.device, max_examples: int | None
) -> FastPath:
    """Over the parameters of `model` (peft's, or the bare one). Raises Unsupported with the reason."""
    _require(dtype, device)
    bare = model.get_base_model() if isinstance(model, PeftModel) else model
    return FastPath(read_network(bare, task, dtype), task, compiled, max_examples)


def build_fused_layers(model: Any, dtype: torch.dtype, device: torch.device) -> list[tuple[FusedLinear, Linear]]:
    """For models that no family reads: each adapted layer, and what it computes at once. Raises Unsupported."""
    _require(dtype, device)
    layers = [module for module in model.modules() if isinstance(module, FusedLinear)]
    if not layers:
        raise Unsupported("there are no LoRA layers")
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    reader = Reader(dtype, flip=num_parameters < FLIPPED_PARAMETERS)
    return [(layer, reader.linear(layer)) for layer in layers]


def _require(dtype: torch.dtype, device: torch.device) -> None:
    if device.type != "cpu":
        raise Unsupported(f"it is not written for {device.type} yet")
    if dtype not in (torch.float32, torch.bfloat16):
        raise Unsupported(f"it is not written for {dtype}")
    try:
        load_library()
    except CannotBuild as error:
        raise Unsupported(str(error)) from error


def read_network(bare: Any, task: str, dtype: torch.dtype) -> Network:
    """Raises Unsupported where the model has or trains what the fast path does not know."""
    kind, known = bare.config.model_type.replace("-", "_"), plugin_names("engine/families")
    family = import_module(f".families.{kind}", __package__) if kind in known else None
    if family is None or task != family.TASK:
        raise Unsupported(f"it is not written for {kind} with {task} ({', '.join(known)})")
    num_parameters = sum(parameter.numel() for parameter in bare.parameters())
    reader = Reader(dtype, flip=num_parameters < FLIPPED_PARAMETERS)
    network = family.read(bare, reader)
    used = {id(parameter) for parameter in reader.used}
    other = [name for name, p in bare.named_parameters() if p.requires_grad and id(p) not in used]
    if other:
        raise Unsupported(f"{len(other):,} tensors are trained that it holds frozen, {other[0]} the first of them")
    return network
