"""What the machine can do at most, and the work of a token: `python bench/limit.py` prints the rates as JSON.

The floor of a LoRA step per real token: each linear layer of P weights needs 2P FLOP forward and 2P for the gradient of
its input; its adapter 6r(in + out); the language head 4HV for the share of tokens that have a label. Attention is left
out.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers.pytorch_utils import Conv1D

SIZE = {"cpu": 2_048, "cuda": 8_192}
REPEATS = 30


def gemm_flop_per_second(dtype: torch.dtype) -> float:
    """The best rate of a large square product, on all threads or on the GPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = SIZE[device]
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


def flop_per_token(folder: Path, r: int, share_of_targets: float) -> float:
    """Of the model in `folder`. Its pooler runs once a text, not once a token, and is left out.

    share_of_targets: tokens with a label among all tokens; it counts for language models only.
    """
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        base = AutoModel.from_config(config)
    layers = [
        module
        for name, module in base.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and "pooler" not in name.split(".")
    ]
    work = sum(4 * layer.weight.numel() + 6 * r * sum(layer.weight.shape) for layer in layers)
    if config.model_type in ("gpt2", "qwen3"):
        work += 4 * config.hidden_size * config.vocab_size * share_of_targets
    return float(work)


def main() -> None:
    rates = {name: gemm_flop_per_second(getattr(torch, name)) for name in ("float32", "bfloat16")}
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
