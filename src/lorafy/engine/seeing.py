"""Decoders that see (Qwen2.5-VL, Qwen3-VL): a vision tower before them, positions on three axes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from .decoder import Decoder
from .llama_like import read_decoder
from .tower import Look, Tower
from .weights import Reader, Unsupported

Seen = Callable[[Any], list[torch.Tensor]]
"""What the vision model returns -> features for the stream, then those that are added behind the first layers."""


def read_seeing(model: Any, reader: Reader, *, seen: Seen, num_added: int, norms_heads: bool) -> Decoder:
    """model: one of transformers' Qwen-VL models, peft's adapters inside.

    num_added: behind how many of the first layers features are added to the stream (Meng et al. 2024, DeepStack).
    """
    body, visual, config = model.model.language_model, model.model.visual, model.config.text_config
    full = set(config.to_dict().get("layer_types") or ["full_attention"]) == {"full_attention"}
    if num_added >= config.num_hidden_layers:
        raise Unsupported(f"features are added behind {num_added} of {config.num_hidden_layers} layers")
    if reader.patches is None:
        raise Unsupported("the task reads no pictures")
    decoder = read_decoder(body, config, model.lm_head, reader, attends_to_all=full, norms_heads=norms_heads)
    trained = [parameter for parameter in visual.parameters() if parameter.requires_grad]
    reader.used += trained

    def angles(positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert decoder.angles is not None, "these models turn queries and keys by their positions"
        return decoder.angles(positions.expand(3, -1))

    look: Look = lambda patches, grids: torch.stack(seen(visual(patches, grid_thw=grids, return_dict=True)))  # noqa: E731
    tower = Tower(
        look,
        reader.patches,
        merge=visual.spatial_merge_size,
        dtype=reader.dtype,
        device=body.embed_tokens.weight.device,
        frozen=not trained,
        keeps=reader.keeps_features,
    )
    return replace(decoder, angles=angles, tower=tower)
