"""A base is quantised tensor by tensor while it is read: it is never whole in memory in a wider dtype."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from language_models import byte_tokenizer

pytest.importorskip("bitsandbytes", reason="model.quantise needs the extra `quantise`", exc_type=ImportError)

LOAD = """
import json, sys, threading
import bitsandbytes, psutil, torch
from transformers import AutoModelForCausalLM
from lorafy.config.schema import ModelSection
from lorafy.models.load import load_whole

process = psutil.Process()
own = lambda: process.memory_info().rss - process.memory_info().shared  # without the pages of the file
loaded = threading.Event()
seen = [own()]
def watch():
    while not loaded.wait(0.002):
        seen.append(own())
watching = threading.Thread(target=watch)
watching.start()
section = ModelSection(path=sys.argv[1], quantise=sys.argv[2] if len(sys.argv) > 2 else None)
base = load_whole(section, AutoModelForCausalLM, 1)
loaded.set()
watching.join()
print(json.dumps({"peak": max(seen) - seen[0], "behind": own() - seen[0]}))
"""
LARGEST_SHARE = {"nf4": 0.35, "int8": 0.5}
"""Of the float32 model's bytes: 0.13 and 0.25 of the layers, and one layer at a time in float32 with its scales."""


def save_llama(folder: Path) -> int:
    """A Llama whose linear layers have 67 million weights, in bfloat16. Gives its bytes in float32."""
    config = LlamaConfig(
        vocab_size=257, hidden_size=512, intermediate_size=2048, num_hidden_layers=16, num_attention_heads=8
    )
    model: Any = LlamaForCausalLM(config)
    model.to(torch.bfloat16)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return 4 * sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.skipif(sys.platform != "linux", reason="counts what glibc's allocator holds")
@pytest.mark.parametrize("form", LARGEST_SHARE)
def test_the_peak_of_loading_is_far_below_the_whole_model(tmp_path: Path, form: str):
    whole = save_llama(tmp_path)
    # What is freed goes back at once, so that the peak is that of what is alive.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", LOAD, str(tmp_path), form]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["peak"] < LARGEST_SHARE[form] * whole, found


@pytest.mark.slow
def test_plan_forecasts_what_quantising_saves(tmp_path: Path) -> None:
    whole = save_llama(tmp_path / "base")
    rows = [{"prompt": f"{n} + 1 =", "completion": str(n + 1)} for n in range(40)]
    (tmp_path / "sums.json").write_text(json.dumps(rows), encoding="utf-8")
    tree = {
        "model": {"path": "base", "dtype": "float32"},
        "data": {"train": "sums.json"},
        "train": {"max_steps": 3, "batch_size": 4},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(tree), encoding="utf-8")
    # What is freed goes back at once: glibc keeps so much of it that a model of this size saves half of it.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    memory = {}
    for form in ("null", "nf4"):
        command = [sys.executable, "-m", "lorafy", "plan", str(tmp_path / "recipe.yaml"), f"model.quantise={form}"]
        done = subprocess.run([*command, "--json"], env=environment, stdout=subprocess.PIPE, text=True, check=True)
        memory[form] = json.loads(done.stdout)["forecast"]["memory_bytes"]
    assert memory["null"] - memory["nf4"] > 0.5 * whole, memory
