"""lorafy's side of the quality tables: real data, the `lorafy train` that users run, one JSON line a run.

    python bench/quality.py same10k SUBSETS_DIR    the peer's settings, 3 methods x 3 seeds, 10,000 rows of SST-2
    python bench/quality.py pairs   SUBSETS_DIR    query and value, 12 seeds, scored on dev and on 6,000 more rows each
    python bench/quality.py whole   SUBSETS_DIR    lorafy's defaults on all of SST-2 less the 2,000 held out
    python bench/quality.py same    SUBSETS_DIR    the peer's settings on all of SST-2, one seed
    python bench/quality.py rates   SUBSETS_DIR    three learning rates, 10,000 rows, scored on the held-out 2,000
    python bench/quality.py sms|agnews             lorafy's defaults

SUBSETS_DIR is what bench/quality_subsets.py wrote. The dev or test set is scored once, at the end of each run; where a
checkpoint is chosen, it is chosen on other rows.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
DEV = DATA / "sst2" / "dev.tsv"
PEER_LORA = {"r": 8, "alpha": 16, "dropout": 0.05}
METHODS = {
    "qv": ({"method": "lora", **PEER_LORA, "target_modules": ["query", "value"]}, 5e-4),
    "all": ({"method": "lora", **PEER_LORA}, 5e-4),
    "full": ({"method": "full"}, 5e-5),
}


def same_settings(train: Path, method: str, seed: int) -> dict:
    """The peer's: one epoch, batch 32, linear schedule without warm-up; the last step's weights are scored."""
    adapter, rate = METHODS[method]
    return {
        "run": {"seed": seed},
        "data": {"train": str(train), "validation": str(DEV)},
        "adapter": adapter,
        "train": {"num_epochs": 1, "learning_rate": rate, "warmup": 0, "evaluate_every": None, "save_every": None},
    }


def recipes(which: str, subsets: Path | None) -> dict[str, dict]:
    if which == "sms":
        source = {"train": str(DATA / "sms_spam" / "SMSSpamCollection"), "columns": {"label": 0, "text": 1}}
        return {"sms": {"data": source}}
    if which == "rates":  # the search for the default learning rate, on the 2,000 rows held out
        train, heldout = (subsets or Path()) / "sst2_search_10k.tsv", (subsets or Path()) / "sst2_search_heldout.tsv"
        data = {"train": str(train), "validation": str(heldout)}
        return {
            f"rate {rate:g}": {"data": data, "train": {"num_epochs": 1, "learning_rate": rate}}
            for rate in (2e-4, 5e-4, 1e-3)
        }
    if which == "agnews":
        folder = DATA / "agnews"
        return {"agnews": {"data": {"train": str(folder / "train_10k.csv"), "test": str(folder / "test.csv")}}}
    if which == "same":
        return {method: same_settings(DATA / "sst2" / "train.tsv", method, 0) for method in METHODS}
    assert subsets is not None, f"{which} needs SUBSETS_DIR"
    if which == "same10k":
        return {
            f"{method} seed {seed}": same_settings(subsets / f"sst2_10k_seed{seed}.tsv", method, seed)
            for seed in range(3)
            for method in METHODS
        }
    if which == "pairs":
        return {
            f"qv seed {seed}": same_settings(subsets / f"sst2_10k_seed{seed}.tsv", "qv", seed) for seed in range(12)
        }
    train, heldout = subsets / "sst2_search_train.tsv", subsets / "sst2_search_heldout.tsv"
    return {"defaults": {"data": {"train": str(train), "validation": str(heldout), "test": str(DEV)}}}


def run(verb: str, *arguments: str) -> dict:
    command = [sys.executable, "-m", "lorafy", verb, *arguments, "--json"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=["same10k", "pairs", "whole", "same", "rates", "sms", "agnews"])
    parser.add_argument("subsets", type=Path, nargs="?")
    arguments = parser.parse_args()
    for name, tree in recipes(arguments.which, arguments.subsets).items():
        with tempfile.TemporaryDirectory() as folder:
            tree = {"model": {"path": "minilm"}, "trackers": ["jsonl"], **tree}
            tree["run"] = {**tree.get("run", {}), "output_dir": folder, "name": "run"}
            recipe = Path(folder) / "recipe.yaml"
            recipe.write_text(json.dumps(tree), encoding="utf-8")
            done = run("train", str(recipe))
            held_out = {}
            if arguments.which == "pairs":
                beside = arguments.subsets / f"sst2_6k_beside{tree['run']['seed']}.tsv"
                more = run("evaluate", f"{folder}/run", f"data.validation={beside}")["metrics"]
                held_out = {"held_out_accuracy": more["accuracy"], "held_out_loss": more["loss"]}
        metrics = done["results"]["metrics"]
        line = {
            "tool": "lorafy",
            "table": arguments.which,
            "name": name,
            "split": done["results"]["split"],
            "num_examples": done["results"]["num_examples"],
            **{key: metrics[key] for key in ("accuracy", "accuracy_interval", "f1_macro", "per_class")},
            **held_out,
            "verified": done["results"]["verification"]["passed"],
            "summary": done["summary"],
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
