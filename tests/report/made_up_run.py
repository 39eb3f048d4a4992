"""Made-up run directories, as the other rooms write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lorafy.run_directory import RunDirectory, write_json, write_text

CHINESE = ["财经", "房产", "股票", "教育", "科技", "社会", "时政", "体育", "游戏", "娱乐"]
SPAM = ["ham", "spam"]


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
    return {**facts, **best, **sizes, **machine, "stopped_early": False}


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
    return {"findings": findings, "splits": splits, "tokens": tokens}


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
