"""What a step of a vision-language model costs: lorafy's fast path against padded transformers, on the same 16 rows.

    python bench/vision_speed.py ROWS.jsonl [--rounds 3] [--steps 4] [--output FILE.jsonl]

In turn (A B C D A B C D), each in a process of its own; run nothing else meanwhile. The model has the proportions of
Qwen3-VL-2B at half its width, 8 of its 28 layers and 7 of its tower's 24, drawn at random; LoRA of rank 16 on the
language model's linear layers; 16 rows with real pictures in one step, forward, backward and update.

    lorafy             the fast path; what the frozen tower makes of a picture is kept after the first step
    lorafy-no-cache    the same, the tower computed at every step
    padded-targets     transformers' own forward on one padded batch, logits at the targets only
    padded-all         the same with logits of every token, as trl's collator makes them

A line says processor seconds and seconds of a step (the median of those behind the first one), of the first one, and
the peak of resident memory during the steps, all in all and above what was there before them. Ratios are made within a
round. Linux only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from lorafy.config import parse_config
from lorafy.data.batches import StepPlan
from lorafy.engine.fast_path import build_fast_path
from lorafy.machine.environment import describe_environment
from lorafy.models.parameters import hold_frozen_weights
from lorafy.models.precision import choose_precision
from lorafy.training.optim import make_optimizer
from lorafy.training.paths import PlainPath
from lorafy.types import IGNORE_INDEX, Features
from lorafy.workflows.build import build_model
from lorafy.workflows.prepare import prepare

ROWS = 16
TOOLS = ("lorafy", "lorafy-no-cache", "padded-targets", "padded-all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--tool", choices=TOOLS, help=argparse.SUPPRESS)
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tool:
        print(json.dumps(measure(options.tool, options.base, options.file, options.steps)))
        return
    with tempfile.TemporaryDirectory() as name:
        base = save_base(Path(name) / "base")
        lines = [one for number in range(options.rounds) for one in one_round(base, number, options)]
    print(table(lines))


def one_round(base: Path, number: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    lines = []
    for tool in TOOLS:
        command = [sys.executable, __file__, str(options.file), "--steps", str(options.steps)]
        done = subprocess.run(
            [*command, "--tool", tool, "--base", str(base)], capture_output=True, encoding="utf-8", check=True
        )
        line = {"tool": tool, "round": number, **json.loads(done.stdout.splitlines()[-1])}
        lines.append(line)
        if options.output:
            with options.output.open("a", encoding="utf-8", newline="\n") as file:
                file.write(json.dumps(line) + "\n")
        print(f"round {number + 1}, {tool}: {line['processor_seconds']:.2f} s", file=sys.stderr, flush=True)
    return lines


def save_base(folder: Path) -> Path:
    """The model's folder, with Qwen's tokenizer from the folder of real data."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    from vision_folders import image_processor, vision_tokenizer

    tokenizer = vision_tokenizer(Path(__file__).resolve().parents[2] / "shared" / "data")
    text: dict[str, Any] = {
        "hidden_size": 1_024,
        "intermediate_size": 3_072,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
    }
    text |= {"num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151_936, "max_position_embeddings": 4_096}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]}}
    tower: dict[str, Any] = {
        "hidden_size": 512,
        "intermediate_size": 2_048,
        "num_heads": 8,
        "depth": 7,
        "out_hidden_size": 1_024,
    }
    tower |= {"deepstack_visual_indexes": [1, 3, 5]}
    torch.manual_seed(0)
    config = Qwen3VLConfig(text_config=text, vision_config=tower, tie_word_embeddings=True)
    Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor("qwen3_vl").save_pretrained(folder)
    return folder


def measure(tool: str, base: Path, rows: Path, steps: int) -> dict[str, Any]:
    """Seconds and bytes of one tool, in this process."""
    tree = {
        "model": {"path": str(base)},
        "data": {"train": str(rows)},
        "adapter": {"r": 16},
        "train": {"num_epochs": 1},
    }
    prepared = prepare(parse_config(tree, "the benchmark's recipe"))
    built = build_model(prepared)
    precision = choose_precision("auto", torch.device("cpu"))
    hold_frozen_weights(built.model, precision.dtype)
    features = prepared.features["train"]
    chosen = [features[index] for index in StepPlan(len(features), ROWS, 0).examples(0)]
    groups = built.method.parameter_groups(built.model, prepared.config.adapter)
    optimizer = make_optimizer(groups, prepared.config.train)
    backward = make_step(tool, prepared, built.model.train(), precision, chosen)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # loading has a peak of its own
    loaded = peak_bytes()
    processor, wall = [], []
    for _ in range(steps):
        before, started = time.process_time(), time.perf_counter()
        loss = backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        processor.append(time.process_time() - before)
        wall.append(time.perf_counter() - started)
    peak = peak_bytes()
    facts = describe_environment()
    return {
        "processor_seconds": statistics.median(processor[1:]),
        "seconds": statistics.median(wall[1:]),
        "first_processor_seconds": processor[0],
        "peak_bytes": peak,
        "peak_above_model_bytes": peak - loaded,
        "loss": loss,
        "dtype": precision.name,
        "num_tokens": sum(map(len, chosen)),
        "num_picture_tokens": sum(picture.num_tokens for one in chosen for picture in one.pictures),
        "processor": facts["processor"],
        "packages": facts["packages"],
    }


def peak_bytes() -> int:
    """The most memory that was resident since the mark was set back."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def make_step(tool: str, prepared: Any, model: Any, precision: Any, chosen: Sequence[Features]) -> Callable[[], float]:
    """A function that leaves the step's gradients, and gives its mean loss."""
    task = prepared.task
    num_targets = sum(feature.num_targets for feature in chosen)
    if tool == "padded-all":
        batch = task.collate(chosen)
        inputs = {name: tensor for name, tensor in batch.inputs.items() if name != "logits_to_keep"}
        labels = torch.full_like(inputs["input_ids"], IGNORE_INDEX)
        for row, feature in enumerate(chosen):
            labels[row, : len(feature)] = torch.tensor(feature.labels)

        def all_logits() -> float:
            with precision.autocast():
                loss = model(**inputs, labels=labels).loss
            loss.backward()
            return loss.item()

        return all_logits
    path: Any = PlainPath(model, task, precision, None)
    if tool.startswith("lorafy"):
        path = build_fast_path(
            model,
            task.objective,
            precision.dtype,
            precision.device,
            None,
            patches=task.patches,
            keeps_features=tool == "lorafy",
        )

    def by_path() -> float:
        total = 0.0
        for batch in path.batches(chosen, range(len(chosen)), 0):
            loss = path.loss(batch).loss_sum / num_targets
            loss.backward()
            total += loss.item()
        return total

    return by_path


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Medians over the rounds; ratios are lorafy's by the tool's in the same round, with their spread."""
    first = lines[0]
    head = [
        f"{ROWS} rows, {first['num_tokens']:,} tokens, {first['num_picture_tokens']:,} of them pictures'; "
        f"{first['processor']}, {first['dtype']}",
        "",
        "| tool | processor seconds a step | seconds | first step | peak memory | above the model | loss "
        "| lorafy's time | lorafy's memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *(row(tool, lines) for tool in TOOLS)])


def row(tool: str, lines: Sequence[dict[str, Any]]) -> str:
    mine = [line for line in lines if line["tool"] == tool]
    ours = [line for line in lines if line["tool"] == TOOLS[0]]

    def middle(key: str) -> float:
        return statistics.median(line[key] for line in mine)

    def ratio(key: str) -> str:
        values = [a[key] / b[key] for a, b in zip(ours, mine, strict=True)]
        return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"

    cells = [
        tool,
        f"{middle('processor_seconds'):.2f}",
        f"{middle('seconds'):.2f}",
        f"{middle('first_processor_seconds'):.2f}",
        f"{middle('peak_bytes') / 2**30:.2f} GiB",
        f"{middle('peak_above_model_bytes') / 2**30:.2f} GiB",
        f"{middle('loss'):.4f}",
        ratio("processor_seconds"),
        ratio("peak_bytes"),
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
