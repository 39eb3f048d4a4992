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


@pytest.mark.skipif(sys.platform != "linux", reason="counts what glibc's allocator holds")
@pytest.mark.parametrize("form", LARGEST_SHARE)
def test_the_peak_of_loading_is_far_below_the_whole_model(tmp_path: Path, form: str):
    config = LlamaConfig(
        vocab_size=257, hidden_size=512, intermediate_size=2048, num_hidden_layers=16, num_attention_heads=8
    )
    model: Any = LlamaForCausalLM(config)
    model.to(torch.bfloat16)
    whole = 4 * sum(parameter.numel() for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    # What is freed goes back at once, so that the peak is that of what is alive.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", LOAD, str(tmp_path), form]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["peak"] < LARGEST_SHARE[form] * whole, found
