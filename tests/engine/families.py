"""A tiny saved base of each family, and texts of many lengths for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, MistralConfig, Qwen2Config

from language_models import ARCHITECTURES, byte_tokenizer, save_language_model, write_rows
from tiny_models import save_distilbert, save_roberta

CLASSIFIERS = ["bert", "distilbert", "roberta", "xlm_roberta"]
LANGUAGE_MODELS = ["gpt2", "opt", "llama", "mistral", "qwen2", "qwen3"]
FAMILIES = [*CLASSIFIERS, *LANGUAGE_MODELS]


def save_family(name: str, folder: Path, tiny_bert: Path) -> Path:
    if name == "bert":
        return shutil.copytree(tiny_bert, folder)
    if name == "distilbert":
        return save_distilbert(folder, tiny_bert)
    if name in ARCHITECTURES:
        return save_language_model(name, folder)
    if name in LANGUAGE_MODELS:
        return _save_kin_of_llama(name, folder)
    save_roberta(folder)
    if name == "xlm_roberta":
        path = folder / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(config | {"model_type": "xlm-roberta"}), encoding="utf-8")
    return folder


def _save_kin_of_llama(name: str, folder: Path) -> Path:
    tokenizer = byte_tokenizer()
    kinds = {"mistral": MistralConfig, "qwen2": Qwen2Config}
    config = kinds[name](
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=256,
        sliding_window=None,
        bos_token_id=256,
        eos_token_id=256,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_ragged_texts(path: Path, rows: list[tuple[str, str]]) -> Path:
    """Labelled texts of one word to thirty."""
    words = [(label, (text.split() * 5)[: 1 + index * 7 % 30]) for index, (label, text) in enumerate(rows)]
    lines = [f'{label},"{" ".join(some)} {index}"\n' for index, (label, some) in enumerate(words)]
    path.write_text("label,text\n" + "".join(lines), encoding="utf-8")
    return path


def write_ragged_answers(path: Path, rows: list[tuple[str, str]]) -> Path:
    """Questions of one word to seven, answers of one to three."""
    texts = [text.split() for _, text in rows]
    pairs = [(words[: 1 + index % 7], words[-1 - index % 3 :]) for index, words in enumerate(texts)]
    return write_rows(
        path, [{"text": f"{' '.join(q)} {index}", "target": " ".join(a)} for index, (q, a) in enumerate(pairs)]
    )
