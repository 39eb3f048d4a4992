"""A model that can be trained without padding, in few large products, and what it takes to get one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Protocol

import torch
from peft import PeftModel
from peft.tuners.adalora import AdaLoraLayer

from ..contracts import Objective
from ..kernels import compiled, gpu
from ..kernels.build import CannotBuild, load_library
from ..kernels.nouns import Linear
from ..kernels.peft_layer import FusedLinear
from ..objectives import TEXTS, TOKENS
from ..plugins import load_plugin, plugin_names
from ..types import Batch, Features, LossOutput, PlacedPicture
from .decoder import Decoder
from .packed import MAX_TOKENS, Rounding, cut, exactly, pack_sequences, pack_texts, rounded
from .tower import Tower
from .weights import Reader, Unsupported

PACKERS: dict[str, Callable[[Sequence[Features], Sequence[int], int | None, Rounding], Batch]] = {
    TEXTS: pack_texts,
    TOKENS: pack_sequences,
}

Patches = Callable[[PlacedPicture], torch.Tensor]
"""A picture of a sequence -> its patches (N, C), float32, on the CPU."""

GPU_MAX_TOKENS = 16_384
"""Of one micro-batch on a GPU, on either path; activation checkpointing comes in where memory asks for it."""


class Network(Protocol):
    """A forward pass over a model's own parameters."""

    def loss(self, ops: ModuleType, batch: Batch, objective: Any, recompute: bool = False) -> LossOutput:
        """The objective's SUM over targets, in fp32."""
        ...


@dataclass(frozen=True)
class FastPath:
    """Batches without padding and their loss.

    ops: the operations, compiled or gpu, or the reference in a test. max_examples, max_tokens: of a micro-batch.
    round_rows: how many rows it gets. recompute: activation checkpointing.
    """

    network: Network
    objective: Objective
    ops: ModuleType
    max_examples: int | None = None
    max_tokens: int = MAX_TOKENS
    round_rows: Rounding = rounded
    recompute: bool = False

    def batches(self, features: Sequence[Features], numbers: Sequence[int], seed: int | None) -> list[Batch]:
        """One step's examples as micro-batches. numbers: which examples of the training split they are. seed: decides
        the dropout masks, whatever the cut; None: nothing is dropped."""
        pack = PACKERS[self.objective.reads]
        runs = cut([len(feature) for feature in features], self.max_examples, self.max_tokens)
        chosen = [([features[i] for i in run], [numbers[i] for i in run]) for run in runs]
        return [pack(*examples, seed, self.round_rows) for examples in chosen]

    @property
    def tower(self) -> Tower | None:
        """What looks at pictures; None in a model that sees none."""
        return self.network.tower if isinstance(self.network, Decoder) else None

    def loss(self, batch: Batch) -> LossOutput:
        """The SUM over targets, in fp32."""
        return self.network.loss(self.ops, batch, self.objective, self.recompute)

    def checkpointed(self) -> FastPath:
        return replace(self, recompute=True)


def build_fast_path(
    model: Any,
    objective: Objective,
    dtype: torch.dtype,
    device: torch.device,
    max_examples: int | None,
    *,
    patches: Patches | None = None,
    keeps_features: bool = True,
) -> FastPath:
    """Over the parameters of `model` (peft's, or the bare one). patches: of a task that shows pictures. keeps_features:
    what a frozen tower makes of a picture is computed once. Raises Unsupported with the reason."""
    ops = operations(dtype, device)
    if any(isinstance(module, AdaLoraLayer) for module in model.modules()):
        raise Unsupported("it is not written for AdaLoRA's layers, B E A")
    bare = model.get_base_model() if isinstance(model, PeftModel) else model
    network = read_network(bare, objective.reads, dtype, patches, keeps_features)
    if ops is gpu:
        return FastPath(network, objective, ops, max_examples, GPU_MAX_TOKENS, exactly)
    return FastPath(network, objective, ops, max_examples)


def build_fused_layers(model: Any, dtype: torch.dtype, device: torch.device) -> list[tuple[FusedLinear, Linear]]:
    """For models that no family reads: each adapted layer, and what it computes at once. Raises Unsupported."""
    operations(dtype, device)
    layers = [module for module in model.modules() if isinstance(module, FusedLinear)]
    if not layers:
        raise Unsupported("there are no LoRA layers")
    reader = Reader(dtype)
    return [(layer, reader.linear(layer)) for layer in layers]


def operations(dtype: torch.dtype, device: torch.device) -> ModuleType:
    """What computes the fast path there. Raises Unsupported with the reason."""
    try:
        if device.type == "cuda":
            if dtype != torch.bfloat16:
                raise Unsupported(f"on a GPU it is not written for {dtype}")
            gpu.require(device)
            return gpu
        if device.type != "cpu":
            raise Unsupported(f"it is not written for {device.type} yet")
        if dtype not in (torch.float32, torch.bfloat16):
            raise Unsupported(f"it is not written for {dtype}")
        load_library()
        return compiled
    except (CannotBuild, gpu.CannotRun) as error:
        raise Unsupported(str(error)) from error


def read_network(
    bare: Any, reads: str, dtype: torch.dtype, patches: Patches | None = None, keeps_features: bool = True
) -> Network:
    """reads: the objective's. patches, keeps_features: see `build_fast_path`.

    Raises Unsupported where the model has or trains what the fast path does not know.
    """
    kind, known = bare.config.model_type.replace("-", "_"), plugin_names("engine/families")
    family = load_plugin("engine/families", kind) if kind in known else None
    if family is None or reads != family.READS:
        raise Unsupported(f"it is not written for {kind} with outputs for {reads} ({', '.join(known)})")
    reader = Reader(dtype, patches, keeps_features)
    network = family.read(bare, reader)
    used = {id(parameter) for parameter in reader.used}
    other = [name for name, p in bare.named_parameters() if p.requires_grad and id(p) not in used]
    if other:
        raise Unsupported(f"{len(other):,} tensors are trained that it holds frozen, {other[0]} the first of them")
    return network
