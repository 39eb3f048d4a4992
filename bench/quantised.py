"""What QLoRA costs and saves: a model of Qwen3-0.6B's size, drawn at random, trained with and without model.quantise.

    python bench/quantised.py ROWS [--steps 100] [--rounds 1] [--batch-size 8] [--dtype auto] [--output FILE.jsonl]

In turn, each in a process of its own; run nothing else meanwhile. ROWS: questions and answers in any form that lorafy
reads; of them those of at most --max-tokens. LoRA of rank 16 on all linear layers; every process trains on the same
rows in the same order.

    lora                    a base in the products' dtype, the model's own forward
    nf4, int8               the base quantised: the model's own forward
    lora-fast, nf4-fast...  the same on the fast path

The losses of 100 steps need one round; times need several, of fewer steps: --steps 8 --rounds 3.

A line says the bytes of the layers that are quantised (or would be) and of all weights, the peak of memory behind
loading and behind the steps, seconds of a step (the median of those behind the first one), and the loss of every step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lorafy.config import parse_config
from lorafy.data.batches import StepPlan
from lorafy.engine.fast_path import build_fast_path
from lorafy.kernels.packed import packed_layers
from lorafy.machine.environment import describe_environment
from lorafy.models.parameters import hold_frozen_weights
from lorafy.models.precision import choose_device, choose_precision
from lorafy.models.targets import linear_layers
from lorafy.training.hardware import peak_memory_bytes
from lorafy.training.optim import make_optimizer
from lorafy.training.paths import PlainPath
from lorafy.workflows.build import build_model
from lorafy.workflows.prepare import prepare
from work import save_model

TOOLS = ("lora", "nf4", "int8", "lora-fast", "nf4-fast", "int8-fast")
MOST_ROWS = 2_000
LEARNING_RATE = 5e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--model", default="qwen3-0.6b", help="a name of bench/work.py, or a model's folder")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--tool", choices=TOOLS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tool:
        print(json.dumps(measure(options.tool, options.model, options.file.resolve(), options)))
        return
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        is_folder = Path(options.model).is_dir()
        base = Path(options.model).resolve() if is_folder else save_model(options.model, Path(folder) / "model")
        for number in range(options.rounds):
            for tool in options.tools:
                line = {"round": number + 1, "tool": tool} | in_own_process(tool, base, options)
                lines.append(line)
                if options.output:
                    with options.output.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")
                print(f"round {number + 1}, {tool}: {line['seconds']:.2f} s a step", file=sys.stderr, flush=True)
    print(table(lines))


def in_own_process(tool: str, base: Path, options: Any) -> dict[str, Any]:
    given = ["--steps", str(options.steps), "--batch-size", str(options.batch_size), "--dtype", options.dtype]
    given += ["--max-tokens", str(options.max_tokens)]
    command = [sys.executable, __file__, str(options.file), "--tool", tool, "--model", str(base), *given]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(tool: str, base: str, rows: Path, options: Any) -> dict[str, Any]:
    """One tool, in this process."""
    form, _, fast = tool.partition("-")
    tree: dict[str, Any] = {
        "model": {"path": base, "dtype": options.dtype, "quantise": None if form == "lora" else form},
        "data": {"train": str(rows), "max_rows": MOST_ROWS, "too_long": "skip"},
        "adapter": {"r": 16},
        "train": {"batch_size": options.batch_size, "learning_rate": LEARNING_RATE, "max_steps": options.steps},
    }
    prepared = prepare(parse_config(tree, "the benchmark's recipe"))
    built = build_model(prepared)
    precision = choose_precision(options.dtype, choose_device())
    hold_frozen_weights(built.model, precision.dtype)
    model = built.model.to(precision.device).train()
    loaded = peak_memory_bytes()
    task = prepared.task
    features = [feature for feature in prepared.features["train"] if len(feature) <= options.max_tokens]
    path: Any = PlainPath(model, task, precision, None)
    if fast:
        path = build_fast_path(model, task.objective, precision.dtype, precision.device, None)
    optimizer = make_optimizer(built.method.parameter_groups(model, prepared.config.adapter), prepared.config.train)
    plan = StepPlan(len(features), options.batch_size, 0)
    losses, seconds = [], []
    for step in range(options.steps):
        numbers = plan.examples(step)
        chosen = [features[number] for number in numbers]
        num_targets = sum(feature.num_targets for feature in chosen)
        started, total = time.perf_counter(), 0.0
        for batch in path.batches(chosen, numbers, step):
            loss = path.loss(batch.to(precision.device)).loss_sum / num_targets
            loss.backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        seconds.append(time.perf_counter() - started)
        losses.append(total)
    facts = describe_environment()
    return {
        "layer_bytes": bytes_of_layers(built.model),
        "layer_values": sum(group.count * group.in_features * group.out_features for group in built.targets),
        "weight_bytes": bytes_of_weights(built.model),
        "peak_loaded_bytes": loaded,
        "peak_bytes": peak_memory_bytes(),
        "seconds": statistics.median(seconds[1:] or seconds),
        "losses": losses,
        "tokens_a_step": sum(map(len, features)) / len(features) * options.batch_size,
        "dtype": precision.name,
        "num_threads": torch.get_num_threads(),
        "processor": facts["processor"],
        "packages": facts["packages"],
    }


def bytes_of_layers(model: Any) -> int:
    """The frozen linear layers of the base, quantised or not, without biases."""
    packed = packed_layers(model)
    if packed:
        return sum(tensor.nbytes for layer in packed.values() for tensor in (layer.weight.data, *layer.scales))
    every: dict[str, Any] = linear_layers(model.get_base_model(), [])
    return sum(layer.weight.nbytes for name, layer in every.items() if name.endswith("base_layer"))


def bytes_of_weights(model: Any) -> int:
    """All that the model holds, what is trained too."""
    scales = sum(tensor.nbytes for layer in packed_layers(model).values() for tensor in layer.scales)
    return scales + sum(parameter.nbytes for parameter in model.parameters())


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Medians over the rounds; of the first round's losses the mean of the last ten, and of the distances from the
    first tool's, step by step."""
    rows = [
        "| | layers, MB | of bfloat16's | all weights, MB | peak, MB | seconds a step | loss, last ten | apart |",
        "|---|---|---|---|---|---|---|---|",
    ]
    reference = lines[0]["losses"]
    for tool in dict.fromkeys(line["tool"] for line in lines):
        own = [line for line in lines if line["tool"] == tool]
        layers, weights, peak = (
            statistics.median(line[key] for line in own) for key in ("layer_bytes", "weight_bytes", "peak_bytes")
        )
        seconds = statistics.median(line["seconds"] for line in own)
        losses = own[0]["losses"]
        apart = statistics.mean(abs(one - other) for one, other in zip(losses, reference, strict=True))
        rows.append(
            f"| {tool} | {layers / 1e6:,.0f} | {layers / (2 * own[0]['layer_values']):.3f} | {weights / 1e6:,.0f} | "
            f"{peak / 1e6:,.0f} | {seconds:.2f} | {statistics.mean(losses[-10:]):.4f} | {apart:.4f} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
