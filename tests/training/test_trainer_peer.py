"""At equal settings lorafy trains what peft + transformers.Trainer trains: same start, same order, same weights."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model_state_dict
from rich.console import Console
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback, TrainingArguments

import lorafy
from lorafy.data.batches import StepPlan, dropout_seed
from tiny_models import build, make_config
from tolerances import FLOAT32_UPDATES

SETTINGS: dict[str, Any] = {
    "num_epochs": 2,
    "batch_size": 8,
    "learning_rate": 5e-3,
    "warmup": 0,
    "evaluate_every": None,
}
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")


def without_dropout(base: Path, folder: Path) -> Path:
    """Masks are drawn in another order; everything else should be the same."""
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | dict.fromkeys(DROPOUTS, 0.0)), encoding="utf-8")
    return folder


@pytest.mark.parametrize("dropout", [False, True])
def test_lorafy_and_trainer_reach_the_same_weights(
    dropout: bool, base_models: dict[str, Path], sms_csv: Path, tmp_path: Path
) -> None:
    base = base_models["bert"] if dropout else without_dropout(base_models["bert"], tmp_path / "base")
    train = equally_long(tmp_path / "train.csv") if dropout else sms_csv
    adapter = {"dropout": 0.1 if dropout else 0.0}
    # The fast path draws its masks elsewhere: with dropout the plain one is compared.
    settings = SETTINGS | {"kernels": "reference" if dropout else "auto"}
    config = make_config(base, train, adapter=adapter, train=settings, run={"output_dir": str(tmp_path / "runs")})
    run = lorafy.train(config, console=Console(quiet=True))
    ours = load_file(run.directory.adapter / "adapter_model.safetensors")

    built, prepared = build(config)
    start = {name: tensor.clone() for name, tensor in get_peft_model_state_dict(built.model).items()}
    features = prepared.features["train"]
    plan = StepPlan(len(features), SETTINGS["batch_size"], config.run.seed)
    # Sorted within a step, as micro-batches are: each row gets the mask of its place.
    order = [index for step in range(2 * plan.steps_per_epoch) for index in sorted(plan.examples(step))]
    assert len(features) % SETTINGS["batch_size"] == 0, "no step of an epoch is smaller"
    assert len({len(feature) for feature in features}) == 1 or not dropout

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = prepared.task.collate([features[row["index"]] for row in rows])
        return {**batch.inputs, "labels": batch.labels}

    class SameMasks(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            torch.manual_seed(dropout_seed(config.run.seed, state.global_step + 1))

    arguments = TrainingArguments(
        output_dir=str(tmp_path / "trainer"),
        num_train_epochs=1,  # `rows` holds both passes
        per_device_train_batch_size=SETTINGS["batch_size"],
        learning_rate=SETTINGS["learning_rate"],
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    rows = [{"index": index} for index in order]
    Trainer(built.model, arguments, train_dataset=rows, data_collator=collate, callbacks=[SameMasks()]).train()
    theirs = get_peft_model_state_dict(built.model)

    assert set(ours) == set(theirs)
    moved = torch.cat([(theirs[name] - start[name]).flatten() for name in ours]).norm()
    apart = torch.cat([(theirs[name] - ours[name]).flatten() for name in ours]).norm()
    assert moved > 1, "something was learned"
    assert apart / moved < FLOAT32_UPDATES, f"{apart / moved:.1e}"


def equally_long(path: Path) -> Path:
    """One micro-batch a step: masks are drawn in the order of micro-batches."""
    draw = random.Random(0)
    rows = [f"{' '.join(draw.choices('abcdefghij', k=6))},{'ham' if i % 2 else 'spam'}" for i in range(68)]
    path.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path
