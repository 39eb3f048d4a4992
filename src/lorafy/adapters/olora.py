"""OLoRA (Büyükakyüz 2024, section 3) through peft: A and B start as the first r rows and columns of W's QR
decomposition. Trained and saved as PiSSA is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from transformers.pytorch_utils import Conv1D

from ..adapter_contract import Attachment
from ..types import ModelError, Problem
from .lora import Chosen
from .pissa import Pissa


class OLora(Pissa):
    """See `Pissa`."""

    title = "OLoRA"
    variant: ClassVar[Mapping[str, Any]] = {"init_lora_weights": "olora"}

    def choose(self, model: Any, request: Attachment) -> Chosen:
        """See `Lora`. Raises ModelError for GPT-2's kind of layer too."""
        chosen = super().choose(model, request)
        turned = [name for name in chosen.targets if isinstance(model.get_submodule(name), Conv1D)]
        if turned:
            message = f"{turned[0]} is a Conv1D, which keeps W transposed, and peft decomposes it as it lies there"
            raise ModelError(Problem("adapter.method", message, "use pissa or lora"))
        return chosen


METHOD = OLora()
