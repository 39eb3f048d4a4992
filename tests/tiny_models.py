"""Tiny base models of every architecture, each with a tokenizer of its kind, and recipes. Start values by seed 0."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    BertTokenizer,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    GPT2Tokenizer,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)

from lorafy.config import parse_config
from lorafy.config.schema import ModelSection, RunConfig
from lorafy.models.load import BaseModel, load_with_head
from lorafy.workflows.build import BuiltModel, build_model
from lorafy.workflows.prepare import Prepared, prepare

WIDTH = 32
LABELS = ["ham", "spam"]
_OF_BERT = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
DROPOUTS = {
    "bert": _OF_BERT,
    "roberta": _OF_BERT,
    "xlm-roberta": _OF_BERT,
    "distilbert": ("dropout", "attention_dropout", "seq_classif_dropout"),
    "gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "opt": ("dropout", "attention_dropout"),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), ("attention_dropout",)),
}


def save_distilbert(folder: Path, tiny_bert: Path) -> Path:
    tokenizer = BertTokenizer.from_pretrained(tiny_bert, model_max_length=64)
    config = DistilBertConfig(
        vocab_size=len(tokenizer), dim=WIDTH, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=64
    )
    return _save(DistilBertModel, config, tokenizer, folder)


def save_roberta(folder: Path) -> Path:
    names = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet()), "<mask>"]
    tokenizer = RobertaTokenizer(vocab={name: index for index, name in enumerate(names)}, merges=[])
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=130,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    return _save(RobertaModel, config, tokenizer, folder)


def save_gpt2(folder: Path) -> Path:
    names = [*sorted(ByteLevel.alphabet()), "<|endoftext|>"]
    tokenizer = GPT2Tokenizer(vocab={name: index for index, name in enumerate(names)}, merges=[])
    end = tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=WIDTH,
        n_layer=2,
        n_head=2,
        n_positions=128,
        bos_token_id=end,
        eos_token_id=end,
    )
    return _save(GPT2Model, config, tokenizer, folder)


def _save(kind: Any, config: Any, tokenizer: Any, folder: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def with_dropout(base: Path, folder: Path, p: float) -> Path:
    """The same weights, with this dropout wherever the architecture has one."""
    shutil.copytree(base, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    changes = dict.fromkeys(DROPOUTS[config["model_type"]], p)
    path.write_text(json.dumps(config | changes), encoding="utf-8")
    return folder


def make_config(base: Path | str, train_file: Path | str, **sections: dict[str, Any]) -> RunConfig:
    """A recipe in float32 without tensorboard; `sections` are laid over it."""
    tree: dict[str, Any] = {
        "model": {"path": str(base), "dtype": "float32"},
        "data": {"train": str(train_file)},
        "trackers": ["jsonl"],
    }
    for name, values in sections.items():
        tree[name] = tree.get(name, {}) | values
    return parse_config(tree, "the test")


def build(config: RunConfig) -> tuple[BuiltModel, Prepared]:
    """The model that this recipe trains, before the first step."""
    prepared = prepare(config)
    return build_model(prepared), prepared


def load_classifier(section: ModelSection, label_names: Sequence[str], pad_token_id: int, seed: int) -> BaseModel:
    """The base as a classifier of these labels starts from it."""
    names = dict(enumerate(label_names))
    head = {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    return load_with_head(section, head, pad_token_id, seed)


def move_trainable(model: Any, amount: float = 0.05) -> None:
    """Stands for training: noise on everything trainable (LoRA's B is zero at the start)."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += amount * torch.randn(parameter.shape, generator=generator)


def logits_of(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(**inputs).logits
