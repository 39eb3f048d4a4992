"""Which method should I take? `lorafy compare` over the methods on real data, three seeds.

    python bench/methods.py sst2|agnews|e2e FOLDER [NAME ...]

FOLDER gets data, recipe and runs, and `compare_results.json` at the end; NAMEs are methods (all six where none is
given). SST-2: 10,000 training rows (drawn by the seed), dev chooses the checkpoint, 6,000 other training rows are the
test set. AG News: 2,000 rows, 1,000 of the test file. E2E: 2,000 rows of the validation file, 300 of the test file;
its model is stories260K. One epoch; everything else by default.
"""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
METHODS = ["lora", "dora", "adalora", "pissa", "qlora", "full"]


def main(which: str, folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / f"{which}.yaml"
    recipe.write_text(json.dumps(RECIPES[which](folder)), encoding="utf-8")
    command = [sys.executable, "-m", "lorafy", "compare", str(recipe), "--methods", *names, "--seeds", "3", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    directory = Path(json.loads(done.stdout)["directory"])
    shutil.copy(directory / "compare_results.json", folder)


def sst2(folder: Path) -> dict:
    header, *rows = (DATA / "sst2" / "train.tsv").read_text(encoding="utf-8").rstrip("\n").split("\n")
    random.Random(0).shuffle(rows)
    test, rest = rows[:6000], rows[6000:]
    taken = {row.split("\t")[0].strip() for row in test}
    write(folder / "test.tsv", [header, *test])
    write(folder / "train.tsv", [header, *(row for row in rest if row.split("\t")[0].strip() not in taken)])
    return {
        "run": {"output_dir": "runs"},
        "model": {"path": "minilm"},
        "data": {
            "train": "train.tsv",
            "validation": str(DATA / "sst2" / "dev.tsv"),
            "test": "test.tsv",
            "max_rows": 10_000,
        },
        "train": {"num_epochs": 1},
    }


def agnews(folder: Path) -> dict:
    header, *rows = (DATA / "agnews" / "test.csv").read_text(encoding="utf-8").rstrip("\n").split("\n")
    write(folder / "test.csv", [header, *random.Random(0).sample(rows, 1000)])
    return {
        "run": {"output_dir": "runs"},
        "model": {"path": "minilm"},
        "data": {"train": str(DATA / "agnews" / "train_10k.csv"), "test": "test.csv", "max_rows": 2000},
        "train": {"num_epochs": 1},
    }


def e2e(folder: Path) -> dict:
    for split, source in (("train", "valid.txt"), ("test", "test.txt")):
        lines = (DATA / "e2e_nlg" / source).read_text(encoding="utf-8").splitlines()
        # Evenly spaced: neighbours ask the same.
        write(folder / f"{split}.txt", lines if split == "train" else lines[:: len(lines) // 300][:300])
    return {
        "run": {"output_dir": "runs"},
        "model": {"path": str(DATA / "stories260K" / "hf")},
        "data": {"train": "train.txt", "test": "test.txt", "max_rows": 2000},
        "train": {"num_epochs": 1},
        "generation": {"evaluate_prompts": 20},
    }


def write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    print(f"{path}: {len(lines):,} lines", file=sys.stderr)


RECIPES = {"sst2": sst2, "agnews": agnews, "e2e": e2e}

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:] or METHODS)
