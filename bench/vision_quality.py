"""Does training look at the pictures? A tiny Qwen3-VL learns the rows of data/vlm by heart; then pictures are swapped.

    python bench/vision_quality.py [--seeds 0 1 2] [--methods full lora] [--output FILE.jsonl]

The model is drawn at random (nothing can be downloaded where this runs), so this measures mechanics, not quality: 57
rows about 13 pictures, 29 of which share their question with another row and differ by the picture alone. Scored: rows
answered exactly by greedy generation; the same with every picture replaced by the next one; and how many of the 29 are
right, before and after. LoRA cannot move the frozen random table of embeddings, which bounds the logits: its base has
the weight of the final norm times 20. Its tokens are bytes: with a real vocabulary most of the time goes into logits.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lorafy import api
from lorafy.machine.environment import processor_name

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT.parent / "shared" / "data" / "vlm"
BATCH_SIZE = 19
MAX_PIXELS = 65_536
"""64 tokens a picture at most: enough to tell these apart."""
METHODS: dict[str, dict[str, Any]] = {
    "full": {"adapter": {"method": "full"}, "learning_rate": 3e-3, "steps": 240, "final_norm": 1.0},
    "lora": {"adapter": {"r": 32, "alpha": 64}, "learning_rate": 5e-3, "steps": 400, "final_norm": 20.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    for method in options.methods:
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as name:
                line = json.dumps(measure(method, seed, Path(name)))
            print(line, flush=True)
            if options.output:
                with options.output.open("a", encoding="utf-8", newline="\n") as file:
                    file.write(line + "\n")


def measure(method: str, seed: int, folder: Path) -> dict[str, Any]:
    """One training, and what it answers."""
    sys.path.insert(0, str(ROOT / "tests"))
    from vision_folders import save_vision_model

    settings = METHODS[method]
    base = save_vision_model("qwen3_vl", folder / "base", width=128, final_norm=settings["final_norm"])
    recipe = {
        "run": {"name": "run", "seed": seed, "output_dir": str(folder)},
        "model": {"path": str(base)},
        "data": {
            "train": str(ROWS / "train.jsonl"),
            "validation": str(ROWS / "test.jsonl"),
            "max_pixels": MAX_PIXELS,
        },
        "adapter": settings["adapter"],
        "train": {
            "max_steps": settings["steps"],
            "batch_size": BATCH_SIZE,
            "learning_rate": settings["learning_rate"],
            "evaluate_every": None,
            "save_every": None,
        },
        "generation": {"evaluate_prompts": 0},
        "trackers": ["jsonl"],
    }
    api.train(recipe, console=Console(quiet=True))
    summary = json.loads((folder / "run" / "summary.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (ROWS / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    pictures = sorted({row["images"][0] for row in rows})
    following = dict(zip(pictures, [*pictures[1:], pictures[0]], strict=True))
    model = api.load(folder / "run")
    right = answered(model, rows, [row["images"][0] for row in rows])
    shifted = answered(model, rows, [following[row["images"][0]] for row in rows])
    asked = Counter(row["messages"][0]["content"] for row in rows)
    shared = [asked[row["messages"][0]["content"]] > 1 for row in rows]
    return {
        "method": method,
        "seed": seed,
        "rows": len(rows),
        "exact": sum(right),
        "exact_shifted": sum(shifted),
        "shared": sum(shared),
        "shared_exact": sum(one for one, among in zip(right, shared, strict=True) if among),
        "shared_exact_shifted": sum(one for one, among in zip(shifted, shared, strict=True) if among),
        "max_pixels": MAX_PIXELS,
        "steps": summary["num_steps"],
        "fast_steps": summary["fast_steps"],
        "seconds": summary["seconds"],
        "processor": processor_name(),
        "dtype": summary["dtype"],
    }


def answered(model: Any, rows: Sequence[dict[str, Any]], pictures: Sequence[str]) -> list[bool]:
    """Which rows are answered exactly, by greedy generation, about these pictures."""
    prompts = [row["messages"][0]["content"] for row in rows]
    shown = [[ROWS / path] for path in pictures]
    answers = model.generate(prompts, pictures=shown, temperature=0.0, max_new_tokens=200)
    return [answer.text == row["messages"][1]["content"] for answer, row in zip(answers, rows, strict=True)]


if __name__ == "__main__":
    main()
