"""A method that lorafy does not know: BitFit (Ben Zaken et al. 2021), the biases and the head alone are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lorafy.adapter_contract import AdapterMethod, Attached, Attachment, ParameterGroup
from lorafy.config.schema import AdapterSection
from lorafy.models.trained_files import head_tensors, require_equal, tensor_names


class BitFit(AdapterMethod):
    title = "BitFit"
    learning_rate = 1e-2
    folder = "adapter"
    weights = "biases.safetensors"

    def __init__(self) -> None:
        self.updates: list[int] = []
        self.num_steps = 0

    def attach(self, model: Any, request: Attachment) -> Attached:
        self.num_steps = request.num_steps
        model.requires_grad_(False)
        for name, parameter in model.named_parameters():
            is_bias, is_head = name.endswith("bias"), any(name.startswith(f"{part}.") for part in request.head)
            parameter.requires_grad_(request.trains(name) and (is_bias or is_head))
        return Attached(model)

    def parameter_groups(self, model: Any, config: AdapterSection) -> list[ParameterGroup]:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        matrices, vectors = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim == 1]
        return [ParameterGroup(matrices), ParameterGroup(vectors, lr_scale=2.0)]

    def regularise(self, model: Any) -> torch.Tensor:
        biases = [p for name, p in model.named_parameters() if p.requires_grad and name.endswith("bias")]
        for bias in biases:
            bias.grad += 2e-3 * bias.detach()
        return 1e-3 * torch.stack([bias.detach().square().sum() for bias in biases]).sum()

    def after_update(self, model: Any, step: int) -> None:
        assert any(p.grad is not None and bool(p.grad.any()) for p in model.parameters()), "the gradients are gone"
        self.updates.append(step)

    def state(self, model: Any) -> dict[str, Any]:
        return {"updates": torch.tensor(self.updates)}

    def load_state(self, model: Any, state: Any) -> None:
        self.updates = state["updates"].tolist()

    def save(self, model: Any, folder: Path, head: Sequence[str]) -> None:
        save_file(self._tensors(model, head), folder / self.weights)

    def load(self, base: Any, folder: Path, head: Sequence[str]) -> Any:
        require_equal(set(self._tensors(base, head)), tensor_names(folder / self.weights), folder)
        base.load_state_dict(load_file(folder / self.weights), strict=False)
        return base

    @contextmanager
    def as_base(self, model: Any, head: Sequence[str], load_base: Callable[[], Any]) -> Iterator[Any]:
        base = load_base()
        base.load_state_dict(head_tensors(model, head), strict=False)
        yield base

    def _tensors(self, model: Any, head: Sequence[str]) -> dict[str, torch.Tensor]:
        biases = {name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if name.endswith("bias")}
        return biases | head_tensors(model, head)


METHOD = BitFit()
