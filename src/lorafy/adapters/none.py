"""Head only: the base is frozen, the classification head is trained. The baseline that LoRA has to beat."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from ..adapter_contract import AdapterMethod, Attached, Attachment
from ..models.trained_files import head_tensors, require_equal, tensor_names
from ..types import ModelError, Problem


class HeadOnly(AdapterMethod):
    """See `AdapterMethod`."""

    title = "head only"
    learning_rate = 1e-3
    folder = "head"
    weights = "head.safetensors"
    needs_head = True
    compare_order = 0

    def attach(self, model: Any, request: Attachment) -> Attached:
        """Freezes all but the head."""
        model.requires_grad_(False)
        for name in request.head:
            model.get_submodule(name).requires_grad_(True)
        return Attached(model)

    def save(self, model: Any, folder: Path, head: Sequence[str]) -> None:
        """Writes the head's tensors."""
        save_file(head_tensors(model, head), folder / self.weights)

    def load(self, base: Any, folder: Path, head: Sequence[str]) -> Any:
        """The base with the trained head put in."""
        names = tensor_names(folder / self.weights)
        expected = head_tensors(base, head)
        require_equal(set(expected), names, folder)
        tensors = load_file(folder / self.weights)
        misshapen = [name for name in expected if tensors[name].shape != expected[name].shape]
        if misshapen:
            message = f"tensors of another shape than the base's: {', '.join(misshapen)}"
            raise ModelError(Problem(str(folder), message, "it was trained on another base"))
        base.load_state_dict(tensors, strict=False)
        return base

    @contextmanager
    def as_base(self, model: Any, head: Sequence[str], load_base: Callable[[], Any]) -> Iterator[Any]:
        """The base under a head as it was before training: the head is what was learned."""
        yield load_base()


METHOD = HeadOnly()
