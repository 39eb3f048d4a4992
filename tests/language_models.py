"""Tiny language models of four architectures that read bytes, small data for them, and the real tokenizers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from lorafy.machine.quiet import quiet_transformers
from lorafy.types import Conversation, Message

ARCHITECTURES = ["gpt2", "opt", "llama", "qwen3"]
WIDTH, POSITIONS = 32, 256
CHATML = """\
{%- for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"""


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str) -> Message:
    return Message("assistant", text)


def system(text: str) -> Message:
    return Message("system", text)


def talk(*texts: str, row: int = 1) -> Conversation:
    """Question, answer, question, answer ..."""
    turns = [user(text) if index % 2 == 0 else assistant(text) for index, text in enumerate(texts)]
    return Conversation(tuple(turns), "the test", row)


def real_tokenizer(shared_data: Path, name: str) -> Any:
    """gpt2, opt, qwen2, qwen3 (qwen2's with Qwen3's template) or stories (Llama's way of cutting)."""
    if name == "stories":
        return AutoTokenizer.from_pretrained(shared_data / "stories260K" / "hf")
    folder = shared_data / "tokenizers"
    tokenizer = AutoTokenizer.from_pretrained(folder / {"qwen3": "qwen2"}.get(name, name))
    if name == "qwen3":
        tokenizer.chat_template = (folder / "qwen2" / "qwen3_chat_template.jinja").read_text(encoding="utf-8")
    return tokenizer


def byte_tokenizer(*, chat: bool = False) -> Any:
    """A token for each byte; the end is <|endoftext|>, as GPT-2's. `chat`: ChatML with its own tokens."""
    names = [*sorted(ByteLevel.alphabet()), "<|endoftext|>"]
    tokenizer = GPT2Tokenizer(vocab={name: index for index, name in enumerate(names)}, merges=[])
    if chat:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
        tokenizer.chat_template = CHATML
    return tokenizer


def make_language_model(name: str, vocab_size: int, *, dropout: float = 0.0) -> Any:
    """Random weights by seed 0, in eval mode."""
    shape: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": WIDTH}
    shape |= {"vocab_size": vocab_size}
    end: dict[str, Any] = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), min(256, vocab_size - 1))
    modern = shape | end | {"intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": POSITIONS}
    configs = {
        "gpt2": lambda: GPT2Config(
            vocab_size=vocab_size, n_embd=WIDTH, n_layer=2, n_head=4, n_positions=POSITIONS, **end,
            resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout,
        ),
        "opt": lambda: OPTConfig(
            **shape, **end, ffn_dim=64, word_embed_proj_dim=WIDTH, max_position_embeddings=POSITIONS,
            dropout=dropout, attention_dropout=dropout,
        ),
        "llama": lambda: LlamaConfig(**modern, attention_dropout=dropout),
        "qwen3": lambda: Qwen3Config(**modern, head_dim=8, attention_dropout=dropout, tie_word_embeddings=True),
    }  # fmt: skip
    kinds = {"gpt2": GPT2LMHeadModel, "opt": OPTForCausalLM, "llama": LlamaForCausalLM, "qwen3": Qwen3ForCausalLM}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kinds[name](configs[name]()).eval()


def save_language_model(name: str, folder: Path, tokenizer: Any = None, *, dropout: float = 0.0) -> Path:
    """Model and tokenizer; Qwen3's talks ChatML, the others have no chat template."""
    tokenizer = byte_tokenizer(chat=name == "qwen3") if tokenizer is None else tokenizer
    with quiet_transformers():
        make_language_model(name, len(tokenizer), dropout=dropout).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


SUMS = [(f"What is {a} and {b}?", f"It is {a + b}.") for a in range(2, 10) for b in range(1, 6)]
"""40 questions with their answers."""


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """As a .json array, or .jsonl."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = "[" + ",\n".join(lines) + "]" if path.suffix == ".json" else "\n".join(lines) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def write_sums(path: Path) -> Path:
    return write_rows(path, [{"text": question, "target": answer} for question, answer in SUMS])


USERS_TRAIN = """\
model_name_or_path: "./Qwen3-1.7B"
torch_dtype: "float16"
output_dir: "./output"
num_train_epochs: 10
per_device_train_batch_size: 2
learning_rate: 5e-4
lora_r: 8
lora_alpha: 16
lora_dropout: 0.1
target_modules: ["q_proj", "v_proj"]
"""
"""The recipe of the YAML framework, as its users have it."""
