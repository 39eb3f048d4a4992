"""The speed of lorafy and its peers on the same work, in turn (A B C A B C), each run in a process of its own.

    python bench/speed.py sst2 TRAIN.tsv [--model minilm|distilbert|bert] [--rounds 3] [--batch-size 16] [--steps 60]
    python bench/speed.py full-length TRAIN.tsv ...   texts of the model's 128 tokens each: no padding to save
    python bench/speed.py answers FILE [--model gpt2|qwen3-0.6b|qwen3-1.7b|qwen3-4b] ...
                                                      questions and answers of at most 128 tokens

`--output FILE.jsonl` gets a JSON line a run (else they go to stdout), stdout the table at the end. `--tools` names some
of the tools only. Run nothing else meanwhile. lorafy is the `lorafy train` that users run; its peers are in
bench/peers.py: `documented` as users' documents set it, `tuned-*` the best that is known, for answers also trl with
packing.

A rate counts real tokens (no padding) of the steps after the first 10, which meet new shapes. The default of 60 steps
leaves 50: one whole cycle of the peers' length grouping, which goes from long to short. Other numbers favour one side.
Ratios are made within a round. "Of the limit": the floor of work for these tokens (bench/limit.py) by the rate of a
large product measured at the start.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limit import flop_per_token
from lorafy.machine.environment import describe_environment, package_version
from peers import LEFT_OUT_STEPS, LORA, PEERS
from work import DECODERS, ENCODERS, Work, make_work

BENCH = Path(__file__).resolve().parent
DOCUMENTED_STEPS = 25
"""Its steps cost the same, padded as they are, and are many times slower."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["sst2", "full-length", "answers"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", choices=["minilm", *ENCODERS, *DECODERS], help="default: minilm, for answers gpt2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--tools", nargs="+", choices=["lorafy", *PEERS])
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    model = options.model or ("gpt2" if options.kind == "answers" else "minilm")
    if (options.kind == "answers") != (model in DECODERS):
        parser.error(f"{options.kind} are not for {model}")
    if options.steps <= LEFT_OUT_STEPS:
        parser.error(f"--steps: the first {LEFT_OUT_STEPS} are left out, so take more")
    tools = options.tools or ["documented", "tuned-autocast", "tuned-bf16", "lorafy"]
    if options.kind == "answers" and not options.tools:
        tools.insert(-1, "trl")
    with tempfile.TemporaryDirectory() as name:
        hardware = describe_hardware()
        say(f"large products: {hardware['gemm_flop_per_second']}")
        work = make_work(options.kind, options.file, model, options.batch_size, options.steps, Path(name))
        say(f"work: {work.facts()}")
        lines = measure(work, tools, options, hardware, Path(name))
    print(table(lines))


def measure(
    work: Work, tools: Sequence[str], options: argparse.Namespace, hardware: dict[str, Any], folder: Path
) -> list[dict[str, Any]]:
    """A line a run, written as soon as it is there."""
    flop = flop_per_token(work.folder, LORA["r"], work.share_of_targets)
    limit = max(hardware["gemm_flop_per_second"].values())
    lines = []
    for number in range(options.rounds):
        for tool in tools:
            started = time.perf_counter()
            steps = min(options.steps, DOCUMENTED_STEPS) if tool == "documented" else options.steps
            run = run_lorafy if tool == "lorafy" else run_peer
            figures = run(work, tool, steps, number, folder)
            figures |= {
                "tokens_per_second": figures["steady_tokens"] / figures["steady_seconds"],
                "examples_per_second": figures["steady_examples"] / figures["steady_seconds"],
                "examples_per_second_of_all_steps": figures["num_examples"] / figures["seconds"],
                "process_seconds": time.perf_counter() - started,
            }
            figures["fraction_of_limit"] = flop * figures["tokens_per_second"] / limit
            line = {
                "tool": tool,
                "round": number,
                "work": work.facts() | {"flop_per_token": flop},
                "hardware": hardware,
            }
            line |= {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}
            lines.append(line)
            write(line, options.output)
            rate = f"{figures['examples_per_second']:.1f} examples/s, {figures['tokens_per_second']:.0f} tokens/s"
            say(f"round {number + 1} of {options.rounds}, {tool}: {rate} ({figures['process_seconds']:.0f} s)")
    check_same_work(lines)
    return lines


def write(line: dict[str, Any], output: Path | None) -> None:
    if output is None:
        print(json.dumps(line), flush=True)
        return
    with output.open("a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(line) + "\n")


def run_peer(work: Work, tool: str, steps: int, seed: int, folder: Path) -> dict[str, Any]:
    command = [sys.executable, str(BENCH / "peers.py"), tool, str(work.folder), str(work.rows)]
    command += ["--batch-size", str(work.batch_size), "--steps", str(steps), "--seed", str(seed)]
    return last_object(command)


def run_lorafy(work: Work, tool: str, steps: int, seed: int, folder: Path) -> dict[str, Any]:
    """Its own figures: the summary, and the windows of steps in metrics.jsonl."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps(work.recipe(steps, seed, folder)), encoding="utf-8")
    summary = last_object([sys.executable, "-m", "lorafy", "train", str(recipe), "--json"])["summary"]
    windows = read_windows(folder / f"seed-{seed}" / "metrics.jsonl", work.batch_size)
    steady = [window for window in windows if window.end > LEFT_OUT_STEPS]
    kept = ("num_steps", "peak_memory_bytes", "trainable_parameters", "num_threads", "fast_steps", "dtype")
    return {
        "seconds": sum(window.seconds for window in windows),
        "num_examples": sum(window.num_examples for window in windows),
        "num_tokens": sum(window.num_tokens for window in windows),
        "steady_seconds": sum(window.seconds for window in steady),
        "steady_examples": sum(window.num_examples for window in steady),
        "steady_tokens": sum(window.num_tokens for window in steady),
        "mean_loss": sum(window.loss * window.num_examples for window in windows) / (steps * work.batch_size),
    } | {key: summary[key] for key in kept}


@dataclass(frozen=True)
class Window:
    """Steps between two records of metrics.jsonl; `end` is the number of the last one, from 1. `loss` is a mean."""

    end: int
    seconds: float
    num_examples: int
    num_tokens: int
    loss: float


def read_windows(metrics: Path, batch_size: int) -> list[Window]:
    """lorafy writes a record every LEFT_OUT_STEPS steps and at the end; all steps are whole ones."""
    windows: list[Window] = []
    for line in metrics.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        num_examples = (record["step"] - (windows[-1].end if windows else 0)) * batch_size
        seconds = num_examples / record["examples_per_second"]
        num_tokens = round(record["tokens_per_second"] * seconds)
        windows.append(Window(record["step"], seconds, num_examples, num_tokens, record["loss"]))
    return windows


def last_object(command: Sequence[str]) -> dict[str, Any]:
    """The JSON object that the command printed last. Ends this program with the command's own words where it fails."""
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {done.returncode}:\n{done.stderr[-4_000:]}")
    return json.loads("{" + f"\n{done.stdout}".rpartition("\n{")[2])  # the Trainer prints its own lines before it


def describe_hardware() -> dict[str, Any]:
    """The machine, the versions, and its rate for large products, measured in a process of its own."""
    facts = describe_environment()
    gpus = (facts["nvidia"] or {}).get("gpus", ())
    return {
        "processor": facts["processor"],
        "cores": facts["cores"],
        "logical_cores": facts["logical_cores"],
        "memory_bytes": facts["memory_bytes"],
        "cpu_features": facts["cpu_features"],
        "gpus": [gpu["name"] for gpu in gpus],
        "python": facts["python"],
        "packages": facts["packages"] | {"trl": package_version("trl")},
        "git_commit": facts["git_commit"],
        "gemm_flop_per_second": last_object([sys.executable, str(BENCH / "limit.py")]),
    }


def check_same_work(lines: Sequence[dict[str, Any]]) -> None:
    counts = {line["tool"]: line["trainable_parameters"] for line in lines}
    assert len(set(counts.values())) == 1, f"the tools train different parameters: {counts}"


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Medians over the rounds; ratios are lorafy's rate by the tool's in the same round, with their spread."""
    by_tool: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_tool.setdefault(line["tool"], []).append(line)
    first = lines[0]
    work, hardware = first["work"], first["hardware"]
    rates = {name: round(rate / 1e9) for name, rate in hardware["gemm_flop_per_second"].items()}
    head = [
        f"{work['kind']}, {work['model']}, {work['batch_size']} examples a step, "
        f"{work['tokens_per_row']} tokens an example, {work['flop_per_token'] / 1e9:.3f} GFLOP a token",
        f"{hardware['processor']}, {hardware['cores']} cores, {first['num_threads']} threads; large products: "
        + ", ".join(f"{name} {rate} GFLOP/s" for name, rate in rates.items()),
        "",
        "| tool | examples/s | tokens/s | examples/s, all steps | of the limit | peak memory | mean loss | lorafy is |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = [row(tool, found, by_tool.get("lorafy")) for tool, found in by_tool.items()]
    return "\n".join([*head, *rows, *verdict(by_tool)])


def row(tool: str, lines: Sequence[dict[str, Any]], ours: Sequence[dict[str, Any]] | None) -> str:
    def middle(key: str) -> float:
        return statistics.median(line[key] for line in lines)

    def spread(key: str, digits: int) -> str:
        values = [line[key] for line in lines]
        return f"{middle(key):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"

    cells = [
        tool,
        spread("examples_per_second", 1),
        spread("tokens_per_second", 0),
        f"{middle('examples_per_second_of_all_steps'):.1f}",
        f"{middle('fraction_of_limit'):.1%}",
        f"{middle('peak_memory_bytes') / 1e6:.0f} MB",
        f"{middle('mean_loss'):.3f}",
        ratio(ours, lines) if ours else "",
    ]
    return f"| {' | '.join(cells)} |"


def ratio(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> str:
    values = [a["tokens_per_second"] / b["tokens_per_second"] for a, b in zip(ours, theirs, strict=True)]
    return f"{statistics.median(values):.2f}x ({min(values):.2f} to {max(values):.2f})"


def verdict(by_tool: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Against the best-tuned peer of this run, and which of lorafy's steps took the fast path."""
    ours = by_tool.get("lorafy")
    tuned = {tool: lines for tool, lines in by_tool.items() if tool not in ("lorafy", "documented")}
    if not ours or not tuned:
        return []
    best = max(tuned, key=lambda tool: statistics.median(line["tokens_per_second"] for line in tuned[tool]))
    fast = f"{ours[0]['fast_steps']} of {ours[0]['num_steps']} steps on the fast path, {ours[0]['dtype']}"
    return ["", f"lorafy against the best-tuned peer, {best}: {ratio(ours, tuned[best])}. lorafy: {fast}."]


def say(what: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
