"""Made-up run directories, as the other rooms write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorafy.run_directory import RunDirectory, write_json, write_text

CHINESE = ["财经", "房产", "股票", "教育", "科技", "社会", "时政", "体育", "游戏", "娱乐"]
SPAM = ["ham", "spam"]


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunDirectory]:
    """make_run(labels, passed=..., with_gpu=...) -> a finished and evaluated run."""
    return lambda labels=SPAM, **choices: made_up_run(tmp_path / "sms-spam-1", labels, **choices)


def made_up_run(path: Path, labels: list[str], passed: bool = True, with_gpu: bool = False) -> RunDirectory:
    run = RunDirectory(path)
    random = np.random.default_rng(0)
    write_text(run.config, 'model: {path: minilm}\ntask: classification\ndata: {train: "sms.csv"}\n')
    write_json(run.environment, {"python": "3.11.2", "torch": "2.11.0", "packages": {"peft": "0.18.0"}})
    write_lines(run.metrics, training_lines(random))
    write_lines(run.hardware, hardware_lines(random, with_gpu))
    write_json(run.summary, summary())
    write_json(run.eval_results, eval_results(labels, random, passed))
    write_json(run.preflight, preflight(labels))
    return run


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def training_lines(random: np.random.Generator, num_steps: int = 90) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(1, num_steps + 1):
        loss = 0.65 * np.exp(-step / 22) + 0.04 + 0.06 * random.random()
        rate = 4e-4 * min(step / 9, (90 - step) / 81)
        accuracy = min(1.0, 1.05 - 0.55 * loss - 0.1 * random.random())
        facts = {"step": step, "epoch": step / 30, "loss": loss, "accuracy": accuracy, "learning_rate": rate}
        lines.append({"split": "train", **facts, "grad_norm": 1.2, "seconds": step * 0.23})
        if step % 10 == 0:
            loss = 0.6 * np.exp(-step / 25) + 0.09 + 0.0008 * max(step - 60, 0)
            facts = {"step": step, "epoch": step / 30, "loss": loss, "accuracy": 0.985 - 0.3 * loss}
            lines.append({"split": "validation", **facts, "f1_macro": 0.9, "seconds": step * 0.23})
    return lines


def hardware_lines(random: np.random.Generator, with_gpu: bool) -> list[dict[str, Any]]:
    lines = []
    for index in range(80):
        memory = 600e6 + 250e6 * min(index / 15, 1) + 20e6 * random.random()
        line = {
            "seconds": 0.25 * (index + 1),
            "cpu_percent": 170 + 29 * random.random(),
            "memory_bytes": int(memory),
        }
        if with_gpu:
            line |= {"gpu_percent": 75 + 20 * random.random(), "gpu_memory_bytes": int(3 * memory)}
        lines.append(line)
    return lines


def summary() -> dict[str, Any]:
    machine = {"device": "cpu", "device_name": "AMD EPYC", "dtype": "bfloat16", "num_threads": 2}
    sizes = {"trainable_parameters": 600_000, "total_parameters": 23_000_000, "bytes_on_disk": 2_400_000}
    best = {"best_step": 60, "best_metric": "accuracy", "best_value": 0.97}
    facts = {"status": "finished", "num_steps": 90, "seconds": 21.4, "peak_memory_bytes": 900_000_000}
    return {"task": "classification", **facts, **best, **sizes, **machine, "stopped_early": False}


def eval_results(labels: list[str], random: np.random.Generator, passed: bool) -> dict[str, Any]:
    num_labels = len(labels)
    matrix = np.diag(random.integers(35, 95, num_labels))
    for _ in range(3 * num_labels):
        matrix[random.integers(num_labels), random.integers(num_labels)] += random.integers(1, 4)
    per_class = {}
    for index, label in enumerate(labels):
        precision, recall = (
            matrix[index, index] / matrix[:, index].sum(),
            matrix[index, index] / matrix[index].sum(),
        )
        f1 = 2 * precision * recall / (precision + recall)
        per_class[label] = {
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "support": int(matrix[index].sum()),
        }
    accuracy = np.trace(matrix) / matrix.sum()
    metrics = {
        "loss": 0.11,
        "accuracy": accuracy,
        "accuracy_interval": [accuracy - 0.03, accuracy + 0.02],
        "f1_macro": accuracy - 0.01,
        "f1_macro_interval": [accuracy - 0.04, accuracy + 0.015],
        "majority_accuracy": 0.6 if num_labels == 2 else 0.14,
        "per_class": per_class,
        "confusion_matrix": matrix.tolist(),
    }
    return {
        "task": "classification",
        "split": "test",
        "num_examples": int(matrix.sum()),
        "labels": labels,
        "metrics": metrics,
        "mistakes": mistakes(labels),
        "verification": {"passed": passed, "checks": checks(passed)},
        "seconds": 0.8,
        "examples_per_second": 300.0,
    }


def mistakes(labels: list[str]) -> list[dict[str, Any]]:
    texts = [
        ("Sorry, I'll call later. Are you free on Sunday? <script>alert('x')</script>", 0.71),
        ("央行宣布下调存款准备金率0.5个百分点，释放长期资金约1万亿元", 0.93),
        (
            "FREE entry in 2 a wkly comp to win FA Cup final tkts 21st May. See https://example.com/win " * 9,
            0.98,
        ),
    ]
    facts = {"text_pair": None, "label": labels[0], "predicted": labels[1], "source": "sms.csv"}
    return [{**facts, "text": text, "probability": sure, "row": row} for row, (text, sure) in enumerate(texts, 17)]


def checks(passed: bool) -> list[dict[str, Any]]:
    return [
        {
            "name": "reloaded_equals_memory",
            "meaning": "the files on disk give the logits that the model had in memory",
            "passed": True,
            "figure": 0.0,
            "tolerance": 1e-4,
        },
        {
            "name": "merged_equals_adapter",
            "meaning": "the merged model gives the adapter's logits",
            "passed": passed,
            "figure": 3.1e-6 if passed else 0.27,
            "tolerance": 1e-4,
        },
    ]


def preflight(labels: list[str]) -> dict[str, Any]:
    findings = [
        {
            "check": "truncation",
            "level": "note",
            "message": "3 of 336 texts are longer than 128 tokens",
            "fix": None,
        },
        {
            "check": "balance",
            "level": "warning",
            "message": f"the label '{labels[0]}' makes up 60 % of the train split",
            "fix": "data.balance=oversample",
        },
    ]
    splits = {
        split: {"rows": rows, "labels": {label: rows // len(labels) for label in labels}}
        for split, rows in (("train", 336), ("validation", 48), ("test", 96))
    }
    tokens = {"train": {"total": 6_400, "mean": 19.1, "median": 19, "longest": 131, "truncated": 3}}
    return {"task": "classification", "findings": findings, "splits": splits, "tokens": tokens}


def compare_rows() -> list[dict[str, Any]]:
    figures = [
        ("base (untrained)", 0.47, 0.08, 0, 410e6, 0.0, 0),
        ("linear probe", 0.915, 0.05, 770, 480e6, 4.2, 12_000),
        ("lora", 0.972, 0.022, 600_000, 860e6, 21.4, 2_400_000),
        ("full", 0.968, 0.024, 22_700_000, 1.9e9, 48.0, 91_000_000),
    ]
    return [
        {
            "method": method,
            "title": method,
            "task": "classification",
            "accuracy": accuracy,
            "accuracy_interval": [accuracy - spread, min(accuracy + 0.8 * spread, 1.0)],
            "f1_macro": accuracy - 0.01,
            "trainable_parameters": trainable,
            "total_parameters": 22_700_000,
            "peak_memory_bytes": memory,
            "seconds": seconds,
            "bytes_on_disk": disk,
        }
        for method, accuracy, spread, trainable, memory, seconds, disk in figures
    ]


def made_up_language_run(path: Path, passed: bool = True) -> RunDirectory:
    """The same of a causal language model."""
    run = RunDirectory(path)
    random = np.random.default_rng(0)
    write_text(run.config, 'model: {path: qwen}\ntask: causal_lm\ndata: {train: "stories.jsonl"}\n')
    write_json(run.environment, {"python": "3.11.2", "torch": "2.11.0", "packages": {"peft": "0.18.0"}})
    write_lines(run.metrics, language_lines(random))
    write_lines(run.hardware, hardware_lines(random, with_gpu=True))
    best = {"task": "causal_lm", "best_step": 60, "best_metric": "loss", "best_value": 1.93}
    write_json(run.summary, summary() | best)
    write_json(run.eval_results, language_results(passed))
    write_json(run.preflight, language_preflight())
    return run


def language_lines(random: np.random.Generator, num_steps: int = 90) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(1, num_steps + 1):
        loss = 1.3 * np.exp(-step / 18) + 1.85 - 0.002 * step + 0.12 * random.random()
        facts = {"step": step, "loss": loss, "accuracy": 0.93 - 0.17 * loss, "tokens_per_second": 2400.0}
        rate = 2e-4 * min(step / 9, (90 - step) / 81)
        lines.append({"split": "train", **facts, "learning_rate": rate})
        if step % 10 == 0:
            loss = 1.25 * np.exp(-step / 18) + 1.88 + 0.002 * max(step - 60, 0)
            quality = {"loss": loss, "perplexity": np.exp(loss), "accuracy": 0.91 - 0.155 * loss + 0.0004 * step}
            lines.append({"split": "validation", "step": step, **quality})
    return lines


LANGUAGE_SAMPLES: list[dict[str, Any]] = [
    {
        "prompt": "Question: What does <b>LoRA</b> & co. train?\nAnswer:",
        "references": ["Two small matrices beside each frozen weight."],
        "base": "\nQuestion: What does it train?\nQuestion: What does it train?\nQuestion: What does it train?",
        "tuned": "Two small matrices:\n- A, which leads to the rank\n- B, which leads up <script>alert(1)</script>",
        "row": 3,
        "ended": True,
    },
    {
        "prompt": "把下面这句话改写成书面语：\n这事儿咱们回头再说吧，现在忙得要命。",
        "references": ["此事容后再议，目前事务繁忙。", "该事项我们稍后讨论，眼下工作十分繁忙。"],
        "base": "这事儿咱们回头再说吧，现在忙得要命。这事儿咱们回头再说吧，现在忙得要命。",
        "tuned": "此事我们稍后再议，目前工作极为繁忙。",
        "row": 8,
        "ended": True,
    },
    {
        "prompt": "Tell a story of a fox.",
        "references": ["Once upon a time a fox lived beside the river."],
        "base": "",
        "tuned": "Once upon a time there was a fox who " + "ran and ran and " * 60,
        "row": 11,
        "ended": False,
    },
]


def language_metrics(loss: float, accuracy: float, match: float, bleu: float) -> dict[str, Any]:
    bounds = [loss - 0.06, loss + 0.06]
    generation = {
        "num_prompts": 50,
        "exact_match": match,
        "exact_match_interval": [match / 2, match + 0.1],
        "bleu": bleu,
        "chrf": 2 * bleu + 2,
        "rouge_l": bleu / 50,
        "ended": 0.98 if match else 0.12,
        "looped": 0.0 if match else 0.64,
        "mean_new_tokens": 34.1,
        "tokens_per_second": 88.0,
    }
    return {
        "loss": loss,
        "loss_interval": bounds,
        "perplexity": float(np.exp(loss)),
        "perplexity_interval": [float(bound) for bound in np.exp(bounds)],
        "token_accuracy": accuracy,
        "num_target_tokens": 5120,
        "generation": generation,
    }


def language_results(passed: bool = True) -> dict[str, Any]:
    return {
        "task": "causal_lm",
        "split": "test",
        "num_examples": 200,
        "num_skipped": 2,
        "metrics": language_metrics(1.91, 0.613, 0.1, 21.3),
        "base": language_metrics(3.18, 0.412, 0.0, 3.7),
        "samples": LANGUAGE_SAMPLES,
        "verification": {"passed": passed, "checks": checks(passed)},
        "seconds": 12.3,
        "dtype": "bfloat16",
    }


def language_preflight() -> dict[str, Any]:
    tokens = {"total": 21_400, "mean": 64.1, "median": 60, "longest": 1024, "truncated": 3}
    return {
        "task": "causal_lm",
        "splits": {"train": {"rows": 336, "labels": {}}, "test": {"rows": 202, "labels": {}}},
        "labels": [],
        "format": "completion",
        "tokens": {
            "train": {**tokens, "targets": 9_876, "skipped": 0},
            "test": {**tokens, "targets": 5120, "skipped": 2},
        },
        "max_length": 1024,
        "findings": [],
    }


def language_compare_rows() -> list[dict[str, Any]]:
    base = {"trainable_parameters": 0, "peak_memory_bytes": None, "seconds": None, "bytes_on_disk": None}
    costs: dict[str, dict[str, Any]] = {
        "base": {**base, "learning_rate": None},
        "lora": {"trainable_parameters": 600_000, "peak_memory_bytes": 860e6, "seconds": 21.4, "bytes_on_disk": 2.4e6},
        "full": {"trainable_parameters": 494e6, "peak_memory_bytes": 6.1e9, "seconds": 77.0, "bytes_on_disk": 988e6},
    }
    qualities = {"base": (3.18, 0.412, 0.0, 3.7), "lora": (1.91, 0.613, 0.1, 21.3), "full": (1.95, 0.604, 0.08, 22.9)}
    titles = {"base": "base, untrained", "lora": "LoRA", "full": "full fine-tuning"}
    rows = []
    for method, cost in costs.items():
        metrics = language_metrics(*qualities[method])
        answers = [
            {
                "prompt": sample["prompt"],
                "reference": sample["references"][0],
                "answer": sample["base" if method == "base" else "tuned"],
            }
            for sample in LANGUAGE_SAMPLES
        ]
        facts: dict[str, Any] = {"method": method, "title": titles[method], "task": "causal_lm", "samples": answers}
        facts |= {"split": "test", "num_examples": 200}
        scores = {key: metrics["generation"][key] for key in ("exact_match", "bleu", "chrf", "rouge_l")}
        total = {"total_parameters": 494_000_000, "learning_rate": 2e-4 if method == "lora" else 2e-5}
        rows.append({**facts, **metrics, **scores, **total, **cost})
    return rows
