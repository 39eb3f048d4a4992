"""One peer's training in a process of its own: peft with the Trainer, trl, or unsloth. bench/speed.py starts it.

    python bench/peers.py tuned-bf16 MODEL_FOLDER ROWS.jsonl [--batch-size 16] [--steps 60] [--seed 0]

A row is {"input_ids": [...], "labels": a class or a list}; the labels say whether the model classifies or writes. Token
ids are given, so that every tool trains on the same ones and nobody's tokenizing is timed. Prints one JSON line of
figures. Real tokens are those of the rows: padding is not counted.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.argv[1:2] == ["unsloth"]:
    import unsloth  # noqa: F401  # before transformers, which it changes

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

LORA: dict[str, Any] = {"r": 8, "alpha": 16, "dropout": 0.05}
LEARNING_RATE = 5e-4
MAX_TOKENS = 128
LEFT_OUT_STEPS = 10
"""The first steps meet new shapes and fresh memory; the steady figures begin after them."""

LAYERS = {  # all linear layers, as lorafy's `target_modules: auto` takes them; speed.py compares the parameter counts
    "bert": ["query", "key", "value", "dense"],
    "distilbert": ["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"],
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "qwen3": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}
HEADS = {"bert": ["classifier"], "distilbert": ["pre_classifier", "classifier"], "gpt2": None, "qwen3": None}


@dataclass(frozen=True)
class Peer:
    """How its user sets it up.

    pad_to: tokens of every row of a batch; None: the batch's longest.
    autocast: bf16 autocast over float32 weights.
    cast: the whole model in bf16, adapters and their optimizer too, nothing autocast.
    packs: trl, which joins rows to sequences without padding.
    liger: liger-kernel's operations, on a GPU, where it is installed.
    unsloth: its model and adapters in bf16, on a GPU, where it is installed; language models only.
    """

    pad_to: int | None = None
    pad_to_multiple_of: int | None = None
    group_by_length: bool = False
    autocast: bool = False
    cast: bool = False
    packs: bool = False
    liger: bool = False
    unsloth: bool = False


PEERS = {
    "documented": Peer(pad_to=MAX_TOKENS),
    "tuned-autocast": Peer(group_by_length=True, autocast=True),
    "tuned-bf16": Peer(group_by_length=True, cast=True),
    "tuned-bf16-of-8": Peer(group_by_length=True, cast=True, pad_to_multiple_of=8),
    "trl": Peer(packs=True, autocast=True),
    "tuned-liger": Peer(group_by_length=True, autocast=True, liger=True),
    "trl-liger": Peer(packs=True, autocast=True, liger=True),
    "unsloth": Peer(group_by_length=True, autocast=True, unsloth=True),
}


class StepClock(TrainerCallback):
    """When training began and when each step ended, in seconds. What lies between two steps is the later one's."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ends = [time.perf_counter()]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available() and state.global_step in (LEFT_OUT_STEPS, state.max_steps):
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


class CountingCollator:
    """Notes how many examples and real tokens each batch has, in the order in which they are trained."""

    def __init__(self, collate: Callable[[list[dict[str, Any]]], Any]):
        self._collate = collate
        self.num_examples: list[int] = []
        self.num_tokens: list[int] = []

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        self.num_examples.append(
            sum(len(row.get("seq_lengths", [1])) for row in rows)
        )  # trl's packed rows have several
        self.num_tokens.append(sum(len(row["input_ids"]) for row in rows))
        return self._collate(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=list(PEERS))
    parser.add_argument("model", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.rows.read_text(encoding="utf-8").splitlines()]
    set_seed(options.seed)
    with tempfile.TemporaryDirectory() as output:
        peer = PEERS[options.peer]
        make = make_packing_trainer if peer.packs else make_trainer
        trainer = make(peer, options.model, rows, options.batch_size, common_arguments(peer, options, output))
        clock, collator = StepClock(), CountingCollator(trainer.data_collator)
        trainer.data_collator = collator
        trainer.add_callback(clock)
        trained = trainer.train()
    print(json.dumps(figures(clock.ends, collator) | result(trainer, trained.training_loss)))


def common_arguments(peer: Peer, options: argparse.Namespace, output: str) -> dict[str, Any]:
    """What every peer is told; dataloader and optimizer are left at their defaults, the latter is the fused AdamW."""
    return {
        "output_dir": output,
        "max_steps": options.steps,
        "learning_rate": LEARNING_RATE,
        "optim": "adamw_torch_fused",
        "use_liger_kernel": peer.liger,
        "bf16": peer.autocast,
        "train_sampling_strategy": "group_by_length" if peer.group_by_length else "random",
        "logging_steps": 100,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "seed": options.seed,
    }


def make_trainer(
    peer: Peer, folder: Path, rows: Sequence[dict[str, Any]], batch_size: int, arguments: dict[str, Any]
) -> Trainer:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    writes = isinstance(rows[0]["labels"], list)
    padding: dict[str, Any] = {"padding": "max_length", "max_length": peer.pad_to} if peer.pad_to else {}
    padding |= {"pad_to_multiple_of": peer.pad_to_multiple_of}
    collate = (DataCollatorForSeq2Seq if writes else DataCollatorWithPadding)(tokenizer, **padding)
    model = make_unsloth_model(folder) if peer.unsloth else make_peft_model(folder, writes)
    if peer.cast:
        model.to(torch.bfloat16)
    settings = TrainingArguments(per_device_train_batch_size=batch_size, **arguments)
    return Trainer(model, settings, train_dataset=list(rows), data_collator=collate)


def make_peft_model(folder: Path, writes: bool) -> Any:
    if writes:
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    else:
        base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, dtype=torch.float32)
    return get_peft_model(base, lora(base.config.model_type))


def make_unsloth_model(folder: Path) -> Any:
    """16-bit, without checkpointing, the recipe's dropout on: as all others here."""
    from unsloth import FastLanguageModel

    base, _ = FastLanguageModel.from_pretrained(
        str(folder), max_seq_length=MAX_TOKENS, dtype=torch.bfloat16, load_in_4bit=False
    )
    return FastLanguageModel.get_peft_model(
        base,
        r=LORA["r"],
        lora_alpha=LORA["alpha"],
        lora_dropout=LORA["dropout"],
        target_modules=LAYERS[base.config.model_type],
        bias="none",
        use_gradient_checkpointing=False,
    )


def make_packing_trainer(
    peer: Peer, folder: Path, rows: Sequence[dict[str, Any]], batch_size: int, arguments: dict[str, Any]
) -> Trainer:
    """A packed sequence holds as many tokens as `batch_size` rows, so that a step has as many rows as the others'.

    Frozen weights in bf16; checkpointing, trl's default, is off as it is everywhere here.
    """
    from trl import SFTConfig, SFTTrainer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    lengths = [len(row["input_ids"]) for row in rows]
    step_tokens = batch_size * sum(lengths) / len(lengths)
    num_sequences = math.ceil(step_tokens / model.config.max_position_embeddings)
    settings = SFTConfig(
        per_device_train_batch_size=num_sequences,
        packing=True,
        max_length=max(math.ceil(step_tokens / num_sequences), *lengths),
        gradient_checkpointing=False,
        **arguments,
    )
    return SFTTrainer(
        model,
        settings,
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=lora(model.config.model_type),
    )


def lora(model_type: str) -> LoraConfig:
    return LoraConfig(
        task_type="SEQ_CLS" if HEADS[model_type] else "CAUSAL_LM",
        r=LORA["r"],
        lora_alpha=LORA["alpha"],
        lora_dropout=LORA["dropout"],
        target_modules=LAYERS[model_type],
        modules_to_save=HEADS[model_type],
        fan_in_fan_out=model_type == "gpt2",
    )


def figures(ends: Sequence[float], batches: CountingCollator) -> dict[str, Any]:
    """Of the whole training and of its steps after the first ones. Batches fetched ahead were not trained on."""
    num_steps = len(ends) - 1
    examples, tokens = batches.num_examples[:num_steps], batches.num_tokens[:num_steps]
    return {
        "num_steps": num_steps,
        "seconds": ends[-1] - ends[0],
        "num_examples": sum(examples),
        "num_tokens": sum(tokens),
        "steady_seconds": ends[-1] - ends[LEFT_OUT_STEPS],
        "steady_examples": sum(examples[LEFT_OUT_STEPS:]),
        "steady_tokens": sum(tokens[LEFT_OUT_STEPS:]),
    }


def result(trainer: Trainer, mean_loss: float) -> dict[str, Any]:
    from lorafy.training.hardware import peak_memory_bytes  # imported now, so that lorafy takes none of that memory

    is_cuda, trained = torch.cuda.is_available(), trainer.model
    assert trained is not None
    return {
        "mean_loss": mean_loss,
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if is_cuda else peak_memory_bytes(),
        "trainable_parameters": sum(int(p.numel()) for p in trained.parameters() if p.requires_grad),
        "num_threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    main()
