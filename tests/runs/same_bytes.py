"""Three runs with real weights whose bytes are committed: a change that is meant to change nothing shows it here.

Rounding depends on the processor, the compiler and torch, so digests are kept by machine. For a machine that is not in
the file, make the digests at a commit that is trusted, then look at the change: `python tests/runs/same_bytes.py FILE`.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from lorafy import demo
from lorafy.machine.environment import processor_name

DIGESTS = Path(__file__).with_name("same_bytes.json")
RECIPES = Path(__file__).resolve().parents[2] / "recipes"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SHORT = ["train.max_steps=8", "train.batch_size=8", "data.max_rows=200"]
CLOCK = {"seconds", "examples_per_second", "tokens_per_second"}


def runs() -> dict[str, list[str]]:
    """A recipe and overrides for each; dropout, so that its masks are held too."""
    stories = SHARED / "stories260K" / "hf"
    return {
        "demo": ["demo.yaml", *SHORT],
        "classifier": [
            str(RECIPES / "sst2_distilbert.yaml"), "model.path=minilm", f"data.train={SHARED / 'sst2' / 'dev.tsv'}",
            "data.subset=null", "train.num_epochs=null", "train.micro_batch_size=4",
            "adapter.target_modules=[query, value]", *SHORT,
        ],
        "language": [
            str(RECIPES / "e2e_nlg.yaml"), f"model.path={stories}", f"data.train={SHARED / 'e2e_nlg' / 'valid.txt'}",
            "data.validation=null", "data.test=null", "train.num_epochs=null", "adapter.target_modules=auto",
            "generation.evaluate_prompts=4", "generation.max_new_tokens=16", "train.warmup=2", *SHORT,
        ],
    }  # fmt: skip


def machine() -> str:
    compiler = subprocess.run(["g++", "-dumpfullversion"], capture_output=True, encoding="utf-8", check=False)
    facts = (processor_name(), torch.backends.cpu.get_cpu_capability(), f"torch {torch.__version__}")
    return ", ".join([*facts, f"g++ {compiler.stdout.strip()}", "1 thread"])


def digests(name: str, folder: Path) -> dict[str, str]:
    """Trains in `folder`; sha256 of the adapter's tensors and of eval_results.json without what a clock decides."""
    recipe, *overrides = runs()[name]
    if name == "demo":
        path = folder / "demo.yaml"
        tree = demo.recipe(folder) | {"train": {}}
        path.write_text(json.dumps(tree), encoding="utf-8")
        recipe = str(path)
    command = [sys.executable, "-m", "lorafy", "train", recipe, *overrides, "model.dtype=float32"]
    command += [f"run.output_dir={folder}", f"run.name={name}", "trackers=[jsonl]"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    run = folder / name
    weights = (run / "adapter" / "adapter_model.safetensors").read_bytes()
    results = without_clock(json.loads((run / "eval_results.json").read_text(encoding="utf-8")))
    return {
        "adapter_model.safetensors": hashlib.sha256(weights).hexdigest(),
        "eval_results.json": hashlib.sha256(json.dumps(results, sort_keys=True).encode()).hexdigest(),
    }


def without_clock(value: Any) -> Any:
    """Also without the folder that the data lie in."""
    if isinstance(value, dict):
        return {key: without_clock(one) for key, one in value.items() if key not in {*CLOCK, "source"}}
    return [without_clock(one) for one in value] if isinstance(value, list) else value


if __name__ == "__main__":
    import tempfile

    target = Path(sys.argv[1])
    known = json.loads(target.read_text(encoding="utf-8")) if target.is_file() else {}
    with tempfile.TemporaryDirectory() as scratch:
        known[machine()] = {name: digests(name, Path(scratch)) for name in runs()}
    target.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(known[machine()], indent=2))
