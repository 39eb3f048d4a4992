"""What a step costs by each method on MiniLM, in turn in one process, so that the ratios count.

    python bench/methods_speed.py TRAIN.tsv [--rounds 5] [--steps 6] [--batch-size 32] [--ways NAME ...]

TRAIN.tsv: sentence and label, as SST-2. Each way takes the same steps of the same rows: forward, backward and update.
A name that ends in `-plain` computes by the model's own forward, where the method has a faster way.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lorafy.config import parse_config
from lorafy.data.batches import StepPlan
from lorafy.engine.fast_path import build_fast_path
from lorafy.models.precision import choose_device, choose_precision
from lorafy.training.optim import make_optimizer
from lorafy.training.paths import PlainPath
from lorafy.workflows.build import build_model
from lorafy.workflows.prepare import prepare

WAYS: dict[str, tuple[dict[str, Any], bool, str | None]] = {
    "lora": ({"method": "lora"}, True, None),
    "lora-plain": ({"method": "lora"}, False, None),
    "lora+": ({"method": "lora", "lr_ratio": 16}, True, None),
    "dora": ({"method": "dora"}, False, None),
    "adalora": ({"method": "adalora"}, False, None),
    "pissa": ({"method": "pissa"}, True, None),
    "qlora": ({"method": "lora"}, True, "nf4"),
    "qlora-plain": ({"method": "lora"}, False, "nf4"),
    "full": ({"method": "full"}, True, None),
    "full-plain": ({"method": "full"}, False, None),
}
"""The adapter section, whether it takes the fast path, and how the base is quantised."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options = parser.parse_args()
    ways = {name: make_way(*WAYS[name], options) for name in options.ways}
    for way in ways.values():
        way(0)
    rounds = [{name: seconds(way, options.steps) for name, way in ways.items()} for _ in range(options.rounds)]
    print(f"{options.dtype}, {torch.get_num_threads()} threads, steps of {options.batch_size} rows")
    first = options.ways[0]
    for name in ways:
        times = [1000 * of[name] for of in rounds]
        ratios = [of[name] / of[first] for of in rounds]
        print(
            f"{name:12} {statistics.median(times):7.1f} ms a step ({min(times):.1f} to {max(times):.1f}), "
            f"{statistics.median(ratios):.2f} of {first} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def seconds(way: Callable[[int], None], steps: int) -> float:
    started = time.perf_counter()
    for step in range(1, steps + 1):
        way(step)
    return (time.perf_counter() - started) / steps


def make_way(adapter: dict[str, Any], fast: bool, quantise: str | None, options: Any) -> Callable[[int], None]:
    """What takes the step of a number."""
    tree: dict[str, Any] = {
        "model": {"path": "minilm", "dtype": options.dtype, "quantise": quantise},
        "data": {"train": str(options.file.resolve()), "max_rows": 2_000},
        "adapter": adapter,
        "train": {"batch_size": options.batch_size, "max_steps": 100},
    }
    prepared = prepare(parse_config(tree, "the benchmark's recipe"))
    built = build_model(prepared)
    precision = choose_precision(options.dtype, choose_device())
    built.hold_frozen(precision.dtype)
    model, task = built.model.to(precision.device).train(), prepared.task
    path: Any = PlainPath(model, task, precision, None)
    if fast:
        path = build_fast_path(model, task.objective, precision.dtype, precision.device, None)
    optimizer = make_optimizer(built.method.parameter_groups(model, prepared.config.adapter), prepared.config.train)
    features = prepared.features["train"]
    plan = StepPlan(len(features), options.batch_size, 0)

    def step(number: int) -> None:
        numbers = plan.examples(number)
        for batch in path.batches([features[n] for n in numbers], numbers, number):
            (path.loss(batch.to(precision.device)).loss_sum / len(numbers)).backward()
        built.method.regularise(model)
        optimizer.step()
        built.method.after_update(model, number)
        optimizer.zero_grad(set_to_none=False)

    return step


if __name__ == "__main__":
    main()
