"""PiSSA (Meng et al. 2024, section 3) through peft: A and B start as the r largest singular values of W, with their
vectors, and what is left of W is frozen.

With A0, B0 the start, training computes (W - s B0 A0) x + s B A x. Saved is W x + s [B, -B0] [A; A0] x: an ordinary
LoRA of rank 2 r on the unchanged base.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from ..adapter_contract import Attached, Attachment
from ..kernels.memory import lay_out
from ..kernels.peft_layer import FusedLinear
from ..machine.quiet import quiet_transformers
from .lora import Lora


class Pissa(Lora):
    """See `Lora`."""

    title = "PiSSA"
    takes_packed = False
    reloads_exactly = False
    # The paper's fast SVD: of MiniLM's layers 16 rounds find 99.8 % of the energy that the r largest values have, and
    # at 2048 x 2048 they take 0.2 s where the whole decomposition takes 3 s.
    variant: ClassVar[Mapping[str, Any]] = {"init_lora_weights": "pissa_niter_16"}

    def claims(self, folder: Path) -> bool:
        """None: what it writes is LoRA's."""
        return False

    def attach(self, model: Any, request: Attachment) -> Attached:
        """Wraps the target layers, and takes the start out of their weights."""
        attached = super().attach(model, request)
        for layer in adapted(attached.model).values():
            A, B = matrices(layer)
            layer.start = A.detach().clone(), B.detach().clone()
            lay_out(frozen(layer))
        return attached

    def state(self, model: Any) -> dict[str, Any]:
        """The start of each layer: on another machine the same decomposition may round otherwise."""
        return {name: list(start_of(layer)) for name, layer in adapted(model).items()}

    def load_state(self, model: Any, state: Mapping[str, Any]) -> None:
        """Puts the start back, and what is left of the base's weights with it."""
        for name, layer in adapted(model).items():
            here, there = start_of(layer), tuple(state[name])
            if not all(map(torch.equal, here, there)):
                weight, scaling = frozen(layer), layer.scaling["default"]
                change = scaling * (here[1] @ here[0] - there[1] @ there[0])
                with torch.no_grad():
                    weight += (change.T if layer.fan_in_fan_out else change).to(weight)
            layer.start = there

    def save(self, model: Any, folder: Path, head: Sequence[str]) -> None:
        """Writes an ordinary LoRA of twice the rank in peft's format."""
        state = model.state_dict()
        for name, layer in adapted(model).items():
            A, B = matrices(layer)
            A0, B0 = (tensor.to(A.device) for tensor in start_of(layer))
            state[f"{name}.lora_A.default.weight"] = torch.cat([A.detach(), A0])
            state[f"{name}.lora_B.default.weight"] = torch.cat([B.detach(), -B0], 1)
        with quiet_transformers():
            model.save_pretrained(folder, state_dict=state, save_embedding_layers=False)
        config = copy.deepcopy(model.peft_config["default"])
        factor = 2**0.5 if config.use_rslora else 2  # of alpha: the scale stays
        config.r, config.lora_alpha = 2 * config.r, factor * config.lora_alpha
        config.rank_pattern = {name: 2 * rank for name, rank in config.rank_pattern.items()}
        config.alpha_pattern = {name: factor * alpha for name, alpha in config.alpha_pattern.items()}
        config.init_lora_weights, config.inference_mode = True, True
        config.save_pretrained(folder)


def adapted(model: Any) -> dict[str, FusedLinear]:
    """The layers with LoRA, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, FusedLinear)}


def matrices(layer: FusedLinear) -> tuple[Any, Any]:
    """A and B."""
    return layer.lora_A["default"].weight, layer.lora_B["default"].weight


def frozen(layer: FusedLinear) -> Any:
    """What is left of W."""
    return layer.get_base_layer().weight


def start_of(layer: FusedLinear) -> tuple[torch.Tensor, torch.Tensor]:
    """A0 and B0."""
    assert layer.start is not None, "attach keeps the start of every layer"
    return layer.start


METHOD = Pissa()
