"""A model that can be trained without padding, in few large products, and what it takes to get one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

from ..contracts import plugin_names
from ..kernels import compiled
from ..kernels.build import CannotBuild, load_library
from ..tasks.classification import Classification, summed_loss
from ..types import Batch, Features, LossOutput
from .encoder import Encoder
from .packed import cut, pack
from .weights import FLIPPED_PARAMETERS, Reader, Unsupported


@dataclass(frozen=True)
class FastPath:
    """Batches without padding and their loss. `ops` are the operations: compiled, or the reference in a test."""

    network: Encoder
    ops: ModuleType
    max_examples: int | None

    def batches(self, features: Sequence[Features], numbers: Sequence[int], seed: int | None) -> list[Batch]:
        """One step's examples as micro-batches. numbers: which examples of the training split they are. seed: decides
        the dropout masks, whatever the cut; None: nothing is dropped."""
        return [
            pack(
                [features[i] for i in run],
                [numbers[i] for i in run],
                seed,
                [label for i in run for label in features[i].labels],
            )
            for run in cut([len(feature) for feature in features], self.max_examples)
        ]

    def loss(self, batch: Batch) -> LossOutput:
        """The SUM over targets, in fp32."""
        return summed_loss(self.network.logits(self.ops, batch.inputs), batch.labels)


def build_fast_path(
    model: Any, task: Any, dtype: torch.dtype, device: torch.device, max_examples: int | None
) -> FastPath:
    """Over the parameters of `model` (peft's, or the bare one). max_examples: of a micro-batch.

    Raises Unsupported with the reason.
    """
    if device.type != "cpu":
        raise Unsupported(f"it is not written for {device.type} yet")
    if not isinstance(task, Classification):
        raise Unsupported("it is not written for language models yet")
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    families = plugin_names("engine/families")
    if bare.config.model_type not in families:
        raise Unsupported(f"it knows {', '.join(families)}, not {bare.config.model_type}")
    try:
        load_library()
    except CannotBuild as error:
        raise Unsupported(str(error)) from error
    network = read_network(bare, dtype)
    return FastPath(network, compiled, max_examples)


def read_network(bare: Any, dtype: torch.dtype) -> Encoder:
    """Raises Unsupported where the model has or trains what the fast path does not know."""
    num_parameters = sum(parameter.numel() for parameter in bare.parameters())
    reader = Reader(dtype, flip=num_parameters < FLIPPED_PARAMETERS)
    family = import_module(f".families.{bare.config.model_type}", __package__)
    network = family.read(bare, reader)
    used = {id(parameter) for parameter in reader.used}
    other = [name for name, p in bare.named_parameters() if p.requires_grad and id(p) not in used]
    if other:
        raise Unsupported(f"{other[0]} is trained, and {len(other) - 1} more")
    return network
