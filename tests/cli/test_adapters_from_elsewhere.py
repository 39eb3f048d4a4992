"""The verbs over adapters that plain peft wrote, on real weights: MiniLM and stories260K."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from command_line import Outcome
from language_models import write_sums
from lorafy.evaluation.verify import relative_difference
from lorafy.models import embedded
from small_models import stories  # noqa: F401  # a fixture
from tiny_models import logits_of, move_trainable
from tolerances import FLOAT32_ROUNDING

Verb = Callable[..., Outcome]
OLDER = {"base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode", "init_lora_weights", "lora_alpha"}
OLDER |= {"lora_dropout", "modules_to_save", "peft_type", "r", "target_modules", "task_type"}
"""What adapter_config.json held in peft's first versions."""


def forms(first: str, second: str, whole: str) -> dict[str, Any]:
    """first, second: ends of the names of target layers. whole: that of a module to train whole."""
    lora: dict[str, Any] = {"r": 4, "target_modules": [first, second]}
    schedule: dict[str, Any] = {"init_r": 6, "target_r": 4, "total_step": 10, "target_modules": [first, second]}
    return {
        "lora": peft.LoraConfig(**lora),
        "patterns": peft.LoraConfig(**lora, rank_pattern={rf"0\..*{first}": 2}, alpha_pattern={second: 5}),
        "dora": peft.LoraConfig(**lora, use_dora=True),
        "rslora": peft.LoraConfig(**lora, use_rslora=True, rank_pattern={first: 9}),
        "all biases": peft.LoraConfig(**lora, bias="all"),
        "whole modules": peft.LoraConfig(**lora, modules_to_save=[whole]),
        "rows": peft.LoraConfig(**lora, trainable_token_indices=[3, 9]),
        "pissa": peft.LoraConfig(**lora, init_lora_weights="pissa"),
        "older": peft.LoraConfig(**lora),
        "adalora": peft.AdaLoraConfig(**schedule),
    }


CLASSIFIER = forms("query", "value", "pooler")
LANGUAGE = forms("q_proj", "v_proj", "norm")


def written_by_peft(base: Any, config: Any, folder: Path, name: str) -> Any:
    """Stands for an adapter that peft alone trained; `older`: as its first versions wrote it."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = peft.get_peft_model(base, config)
        move_trainable(model)
        model.save_pretrained(str(folder))
    if name == "older":
        path = folder / "adapter_config.json"
        settings = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({key: settings[key] for key in OLDER}), encoding="utf-8")
    return model


def evaluated_verified_merged(lorafy: Verb, adapter: Path, data: str, merged: Path) -> dict[str, Any]:
    """Through the command line; gives what `evaluate` found."""
    found = {}
    for verb, arguments in (
        ("evaluate", [data, "generation.evaluate_prompts=2", "--json"]),
        ("verify", ["--json"]),
        ("merge", ["--output", merged, "--json"]),
    ):
        outcome = lorafy(verb, adapter, *arguments)
        assert outcome.code == 0, (verb, outcome.stderr)
        found[verb] = json.loads(outcome.stdout)
    names = [check["name"] for check in found["verify"]["checks"]]
    assert names == ["differs_from_base", "merged_equals_adapter"] and found["verify"]["passed"]
    assert found["evaluate"]["verification"]["passed"] and found["merge"]["verification"]["passed"]
    return found["evaluate"]


@pytest.mark.parametrize("form", CLASSIFIER)
def test_a_classifier_over_minilm(lorafy: Verb, sms_csv: Path, tmp_path: Path, form: str) -> None:
    place = embedded.resolve(embedded.NAME)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        base = AutoModelForSequenceClassification.from_pretrained(place, num_labels=2)
    config = CLASSIFIER[form]
    config.task_type = "SEQ_CLS"
    theirs = written_by_peft(base, config, tmp_path / "adapter", form)
    inputs = AutoTokenizer.from_pretrained(place)(["a prize , call now", "see you"], return_tensors="pt", padding=True)
    expected = logits_of(theirs, inputs)
    # Its labels have no names: the data's are those that peft's user gave numbers to.
    numbered = tmp_path / "numbered.csv"
    with sms_csv.open(encoding="utf-8") as file, numbered.open("w", encoding="utf-8", newline="") as out:
        rows = list(csv.DictReader(file))
        writer = csv.DictWriter(out, ["text", "label"])
        writer.writeheader()
        writer.writerows({"text": row["text"], "label": f"LABEL_{int(row['label'] == 'spam')}"} for row in rows)
    results = evaluated_verified_merged(lorafy, tmp_path / "adapter", f"data.train={numbered}", tmp_path / "merged")
    assert results["task"] == "classification" and 0 <= results["metrics"]["accuracy"] <= 1
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert relative_difference(logits_of(merged, inputs), expected) < FLOAT32_ROUNDING


@pytest.mark.parametrize("form", LANGUAGE)
def test_a_language_model_over_stories(lorafy: Verb, stories: Path, tmp_path: Path, form: str) -> None:  # noqa: F811
    base = AutoModelForCausalLM.from_pretrained(stories)
    config = LANGUAGE[form]
    config.task_type = "CAUSAL_LM"
    theirs = written_by_peft(base, config, tmp_path / "adapter", form)
    inputs = AutoTokenizer.from_pretrained(stories)("Once upon a time", return_tensors="pt")
    expected = logits_of(theirs, inputs)
    sums = write_sums(tmp_path / "sums.json")
    results = evaluated_verified_merged(lorafy, tmp_path / "adapter", f"data.train={sums}", tmp_path / "merged")
    assert results["task"] == "causal_lm" and results["metrics"]["loss"] != results["base"]["loss"]
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert relative_difference(logits_of(merged, inputs), expected) < FLOAT32_ROUNDING


def test_a_refusal_leaves_no_merged_model(lorafy: Verb, stories: Path, tmp_path: Path) -> None:  # noqa: F811
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", alora_invocation_tokens=[5])
    written_by_peft(AutoModelForCausalLM.from_pretrained(stories), config, tmp_path / "adapter", "alora")
    for verb, arguments in (("merge", ["--output", tmp_path / "merged"]), ("verify", []), ("evaluate", [])):
        outcome = lorafy(verb, tmp_path / "adapter", *arguments)
        assert outcome.code == 2 and "Traceback" not in outcome.stderr
        if verb != "evaluate":
            assert "no weights compute the same as this adapter" in outcome.stderr
    assert not (tmp_path / "merged").exists()
