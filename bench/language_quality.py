"""Equal settings, equal data: lorafy's language-model training beside peft + transformers.Trainer, one JSON line a run.

    python bench/language_quality.py            E2E (1,000 rows, 3 epochs) with the pretrained stories260K, three seeds

Both get the same token ids and labels (lorafy's encoding), the same LoRA (all linear layers, r 16, alpha 32), batch 32,
learning rate 1e-3, linear schedule without warm-up, float32. Scored: the mean loss of the answer tokens of 500 held-out
rows. The start values of A and the order of the rows differ by design: what is compared is the spread over seeds.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
MODEL = DATA / "stories260K" / "hf"
TRAIN_ROWS, TEST_ROWS, SEEDS = 1_000, 500, (0, 1, 2)
LORA = {"r": 16, "alpha": 32}
TRAIN: dict[str, Any] = {"num_epochs": 3, "batch_size": 32, "learning_rate": 1e-3, "warmup": 0}


def main() -> None:
    if len(sys.argv) > 1:  # one peer run, in a process of its own
        peer(Path(sys.argv[1]), int(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split, source, count in (("train", "valid.txt", TRAIN_ROWS), ("test", "test.txt", TEST_ROWS)):
            lines = (DATA / "e2e_nlg" / source).read_text(encoding="utf-8").splitlines()
            step = len(lines) // count  # evenly spaced: neighbours ask the same
            (folder / f"{split}.txt").write_text("\n".join(lines[::step][:count]) + "\n", encoding="utf-8")
        for seed in SEEDS:
            recipe = write_recipe(folder, seed)
            done = subprocess.run(
                [sys.executable, "-m", "lorafy", "train", str(recipe), "--json"], stdout=subprocess.PIPE, check=True
            )
            result = json.loads(done.stdout)
            metrics = result["results"]["metrics"]
            line = {"tool": "lorafy", "seed": seed, "loss": metrics["loss"], "interval": metrics["loss_interval"]}
            print(json.dumps(line | {"base_loss": result["results"]["base"]["loss"]}), flush=True)
            command = [sys.executable, __file__, str(recipe), str(seed)]
            print(
                subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout.strip(), flush=True
            )


def write_recipe(folder: Path, seed: int) -> Path:
    recipe = folder / f"e2e-{seed}.yaml"
    tree = {
        "run": {"seed": seed, "output_dir": str(folder / "runs")},
        "model": {"path": str(MODEL), "dtype": "float32"},
        "data": {"train": "train.txt", "validation": "test.txt"},
        "adapter": LORA,
        "train": TRAIN | {"evaluate_every": None},
        "generation": {"evaluate_prompts": 0},
        "trackers": ["jsonl"],
    }
    recipe.write_text(json.dumps(tree), encoding="utf-8")
    return recipe


def peer(recipe: Path, seed: int) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments, set_seed

    from lorafy.config import load_config
    from lorafy.workflows.prepare import prepare

    prepared = prepare(load_config(recipe))
    rows = {
        split: [{"input_ids": feature.input_ids, "labels": feature.labels} for feature in features]
        for split, features in prepared.features.items()
    }

    def collate(batch: list[dict]) -> dict:
        longest = max(len(row["input_ids"]) for row in batch)
        padded = {"input_ids": (0, "input_ids"), "labels": (-100, "labels")}
        tensors = {
            name: torch.tensor([row[key] + [fill] * (longest - len(row[key])) for row in batch])
            for name, (fill, key) in padded.items()
        }
        mask = [[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in batch]
        return tensors | {"attention_mask": torch.tensor(mask)}

    set_seed(seed)
    model: Any = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=LORA["r"], lora_alpha=LORA["alpha"], lora_dropout=0.0, target_modules="all-linear"
    )
    model = get_peft_model(model, lora)
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output_dir=output,
            num_train_epochs=TRAIN["num_epochs"],
            per_device_train_batch_size=TRAIN["batch_size"],
            learning_rate=TRAIN["learning_rate"],
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
            seed=seed,
            use_cpu=True,
        )
        Trainer(model=model, args=arguments, train_dataset=rows["train"], data_collator=collate).train()
    model.eval()
    total = targets = 0.0
    with torch.inference_mode():
        for row in rows["validation"]:
            logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1].double()
            labels = torch.tensor(row["labels"][1:])
            total += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
            targets += (labels != -100).sum().item()
    print(json.dumps({"tool": "peft + Trainer", "seed": seed, "loss": total / targets}))


if __name__ == "__main__":
    main()
