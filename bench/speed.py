"""The speed baseline: lorafy and peft + Trainer in turn (A B C A B C), a process each, on SST-2 with MiniLM, batch 32.

    python bench/speed.py TRAIN.tsv [--rounds 3]

Prints a JSON line a process and a table of medians with their spread. Run nothing else meanwhile. Examples per second
leave out model loading; lorafy's come from the `lorafy train` that users run, the peer's from its own report.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

STEPS, PADDED_STEPS = 60, 20  # the padded peer is several times slower
PEER = [sys.executable, str(Path(__file__).parent / "quality_peer.py")]


def lorafy(train: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"
        settings = {
            "run": {"output_dir": folder},
            "model": {"path": "minilm"},
            "data": {"train": str(train), "max_rows": 4_000},
            "adapter": {"r": 8, "alpha": 16, "dropout": 0.05},
            "train": {"max_steps": STEPS, "evaluate_every": None, "save_every": None},
        }
        recipe.write_text(json.dumps(settings), encoding="utf-8")
        command = [sys.executable, "-m", "lorafy", "train", str(recipe), "--json"]
        summary = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)["summary"]
    return summary["num_steps"] * 32 / summary["seconds"]


def peer(train: Path, *options: str) -> float:
    command = [*PEER, str(train), str(train), "--method", "all", "--speed-only", *options]
    lines = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout.strip().splitlines()
    return json.loads(lines[-1])["examples_per_second"]


TOOLS = {
    "lorafy": lorafy,
    "peft + Trainer, dynamic padding, float32": lambda train: peer(train, "--max-steps", str(STEPS)),
    "peft + Trainer, dynamic padding, bf16 autocast": lambda train: peer(train, "--max-steps", str(STEPS), "--bf16"),
    "peft + Trainer, padded to 128, float32": lambda train: peer(
        train, "--max-steps", str(PADDED_STEPS), "--pad-to", "128"
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    speeds: dict[str, list[float]] = {name: [] for name in TOOLS}
    for number in range(arguments.rounds):
        for name, measure in TOOLS.items():
            speeds[name].append(measure(arguments.train))
            print(json.dumps({"round": number, "tool": name, "examples_per_second": speeds[name][-1]}), flush=True)
    for name, values in speeds.items():
        ratios = [ours / theirs for ours, theirs in zip(speeds["lorafy"], values, strict=True)]
        print(
            f"{name:50} {statistics.median(values):7.1f} examples/s ({min(values):.1f} to {max(values):.1f}); "
            f"lorafy is {statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
