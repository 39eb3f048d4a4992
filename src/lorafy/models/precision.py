"""On which device and in which precision a model computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from ..machine.environment import cpu_has_fast_bfloat16


@dataclass(frozen=True)
class Precision:
    """The dtype of matrix products. Trained parameters, norms, losses and sums are float32 whatever it is.

    `note` says so where it is not what the recipe asked for.
    """

    dtype: torch.dtype
    device: torch.device
    note: str | None = None

    @property
    def name(self) -> str:
        """The dtype without torch's prefix: `bfloat16`."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def scales_loss(self) -> bool:
        """Whether the loss is scaled up before backward: float16 gradients underflow."""
        return self.dtype == torch.float16

    def autocast(self) -> AbstractContextManager:
        """torch's autocast of products to `dtype`; nothing in float32."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def choose_device() -> torch.device:
    """The device to compute on: a CUDA GPU, else Apple's, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def choose_precision(wanted: str, device: torch.device) -> Precision:
    """The dtype that is wanted; auto: bfloat16 where it is fast, float16 on other CUDA GPUs, else float32."""
    if wanted != "auto":
        dtype = getattr(torch, wanted)
        if dtype == torch.float16 and device.type == "cpu":
            return Precision(torch.float32, device, "float16 has no use on a CPU: computing in float32")
        return Precision(dtype, device)
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return Precision(torch.bfloat16 if fast else torch.float16, device)
    if device.type == "cpu" and cpu_has_fast_bfloat16():
        return Precision(torch.bfloat16, device)
    return Precision(torch.float32, device)
