"""Tiny vision-language models of both families, from configs, and a picture that they read. No tokenizer, no file."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

MERGE = 2
"""A token of a picture stands for MERGE x MERGE patches."""


def tiny_qwen3_vl(vocab_size: int = 300, *, width: int = 32, tied: bool = True, **token_ids: int) -> Any:
    """Qwen3-VL in eval mode, random by seed 0: 2 layers, tower of 2 blocks, deepstack behind block 0.

    token_ids: `image_token_id`, `video_token_id`, `vision_start_token_id`, `vision_end_token_id`; default: the last
    four of the vocabulary. Pictures: patches of 16, so 1,536 columns, as in the real ones.
    """
    vision = {"patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    text = {"head_dim": 8, "rope_parameters": _rope(mrope_interleaved=True)}
    settings = _shape(vocab_size, width, vision, text) | _ids(vocab_size, token_ids)
    return _seeded(Qwen3VLForConditionalGeneration, Qwen3VLConfig(**settings, tie_word_embeddings=tied))


def tiny_qwen2_5_vl(vocab_size: int = 300, *, width: int = 32, tied: bool = True, **token_ids: int) -> Any:
    """Qwen2.5-VL in eval mode, random by seed 0: 2 layers, tower of 2 blocks, full attention in block 1, windows of
    56 pixels in block 0.

    token_ids: as `tiny_qwen3_vl`'s. Pictures: patches of 14, so 1,176 columns, as in the real ones.
    """
    vision = {"patch_size": 14, "fullatt_block_indexes": [1], "window_size": 56}
    text = {"rope_parameters": _rope(), "bos_token_id": None, "eos_token_id": None}
    settings = _shape(vocab_size, width, vision, text) | _ids(vocab_size, token_ids)
    return _seeded(Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLConfig(**settings, tie_word_embeddings=tied))


VISION_MODELS = {"qwen3_vl": tiny_qwen3_vl, "qwen2_5_vl": tiny_qwen2_5_vl}


def picture_inputs(model: Any, grid: tuple[int, int] = (4, 6), words: int = 5) -> dict[str, torch.Tensor]:
    """One row for `model`: random words, a picture of grid[0] x grid[1] patches between its marks, random words."""
    config, vision = model.config, model.config.vision_config
    height, width = grid
    generator = torch.Generator().manual_seed(1)
    first = min(config.image_token_id, config.vision_start_token_id)  # words come from below the marks
    text = torch.randint(0, min(first, config.text_config.vocab_size), (2, words), generator=generator).tolist()
    pads = [config.image_token_id] * (height * width // MERGE**2)
    ids = [*text[0], config.vision_start_token_id, *pads, config.vision_end_token_id, *text[1]]
    columns = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    row = torch.tensor([ids])
    return {
        "input_ids": row,
        "attention_mask": torch.ones_like(row),
        "mm_token_type_ids": (row == config.image_token_id).long(),
        "pixel_values": torch.randn(height * width, columns, generator=generator),
        "image_grid_thw": torch.tensor([[1, height, width]]),
    }


def _shape(vocab_size: int, width: int, vision: dict[str, Any], text: dict[str, Any]) -> dict[str, Any]:
    tower = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": width}
    tower |= {"spatial_merge_size": MERGE, "temporal_patch_size": 2}
    words = {"num_hidden_layers": 2, "hidden_size": width, "intermediate_size": 2 * width, "vocab_size": vocab_size}
    words |= {"num_attention_heads": width // 8, "num_key_value_heads": width // 16, "max_position_embeddings": 512}
    return {"vision_config": tower | vision, "text_config": words | text}


def _rope(**settings: Any) -> dict[str, Any]:
    """Heads of 8, so four angles: two of the first axis, one of each other."""
    return {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1], **settings}


def _ids(vocab_size: int, given: dict[str, int]) -> dict[str, Any]:
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    ids = {name: vocab_size - len(names) + index for index, name in enumerate(names)}
    assert given.keys() <= ids.keys(), f"token_ids are {', '.join(names)}"
    return ids | given


def _seeded(kind: Any, config: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(config).eval()
