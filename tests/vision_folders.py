"""Whole folders of tiny vision-language models, with tokenizer and image processor, and rows with real pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from language_models import byte_tokenizer, real_tokenizer
from lorafy.machine.quiet import quiet_transformers
from vision_models import VISION_MODELS

PICTURE_TOKENS = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
VISION_CHATML = """\
{%- for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}
{%- if message.content is string %}{{ message.content }}
{%- else %}{%- for part in message.content %}
{%- if part.type == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- else %}{{ part.text }}{%- endif %}{%- endfor %}
{%- endif %}{{ '<|im_end|>\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"""
"""As Qwen3-VL's, without tools."""


def vision_tokenizer(shared_data: Path | None = None) -> Any:
    """Qwen's own; without the folder of real data one that reads bytes."""
    if shared_data is not None:
        tokenizer = real_tokenizer(shared_data, "qwen2")
    else:
        tokenizer = byte_tokenizer(chat=True)
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", *PICTURE_TOKENS]})
    tokenizer.chat_template = VISION_CHATML
    return tokenizer


def save_vision_model(
    name: str, folder: Path, tokenizer: Any = None, *, final_norm: float = 1.0, **settings: Any
) -> Path:
    """A complete folder: model, tokenizer, image processor. final_norm: a factor on the last norm's weight; by it a
    model whose frozen table of embeddings is random can be sure of a token."""
    tokenizer = vision_tokenizer() if tokenizer is None else tokenizer
    start, end, image, video = tokenizer.convert_tokens_to_ids(PICTURE_TOKENS)
    ids = {"vision_start_token_id": start, "vision_end_token_id": end, "image_token_id": image, "video_token_id": video}
    model = VISION_MODELS[name](len(tokenizer), **ids, **settings)
    with torch.no_grad():
        model.model.language_model.norm.weight *= final_norm
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    with quiet_transformers():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor(name).save_pretrained(folder)
    return folder


def image_processor(name: str) -> Any:
    """As the real models' preprocessor_config.json has it."""
    if name == "qwen2_5_vl":
        return Qwen2VLImageProcessorPil(size={"shortest_edge": 3_136, "longest_edge": 12_845_056})
    half = [0.5] * 3
    size = {"shortest_edge": 65_536, "longest_edge": 16_777_216}
    return Qwen2VLImageProcessorPil(patch_size=16, image_mean=half, image_std=half, size=size)
