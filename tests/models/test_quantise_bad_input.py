"""What is said where a base cannot be quantised, or is quantised already in a way that cannot be read here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorafy.config import parse_config
from lorafy.config.schema import ModelSection
from lorafy.models import quantise
from lorafy.types import ConfigError, ModelError, UserError
from lorafy.workflows.prepare import prepare
from tiny_models import build, make_config


def test_the_missing_package_is_named_with_the_line_that_installs_it(language_bases, monkeypatch):
    monkeypatch.setattr(quantise, "is_bitsandbytes_available", lambda version: False)
    with pytest.raises(UserError, match="needs bitsandbytes") as info:
        prepare(make_config(language_bases["llama"], Path("no.json"), model={"quantise": "nf4"}))
    assert len(info.value.problems) == 2, "before any row is read"
    assert info.value.problems[0].fix == 'pip install "lorafy[quantise]"'


def test_an_unknown_form_is_named():
    with pytest.raises(ConfigError, match="nf4"):
        parse_config({"model": {"path": "minilm", "quantise": "nf3"}, "data": {"train": "a.csv"}}, "the test")


STORED = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"},
}


def add_to_config(folder: Path, quantisation: dict[str, Any]) -> None:
    path = folder / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | {"quantization_config": quantisation}), encoding="utf-8")


@pytest.mark.parametrize("name", STORED)
def test_a_folder_that_is_quantised_already_is_refused_with_the_reason(language_bases, sums_json, tmp_path, name: str):
    """Its weights are whole ones here: what stops it is what is not installed, or that none of it is there."""
    folder = Path(shutil.copytree(language_bases["llama"], tmp_path / "base"))
    add_to_config(folder, STORED[name])
    with pytest.raises(ModelError) as info:
        build(make_config(folder, sums_json))
    message = str(info.value.problems[0])
    assert "quantised already" in message, message


BLOCK = 4


def test_a_folder_in_fp8_is_loaded_in_float32_as_transformers_gives_it_back(stories, sums_json, tmp_path):
    folder = Path(shutil.copytree(stories, tmp_path / "base"))
    whole, packed = load_file(folder / "model.safetensors"), {}
    for name, weight in whole.items():
        packed[name] = weight
        if ".layers." in name and weight.ndim == 2:
            rows, columns = weight.shape
            blocks = weight.float().view(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
            scale = blocks.abs().amax((1, 3), keepdim=True) / 448  # the largest number of float8_e4m3fn
            packed[name] = (blocks / scale).view(rows, columns).to(torch.float8_e4m3fn)
            packed[name.replace(".weight", ".weight_scale_inv")] = scale[:, 0, :, 0].contiguous()
    save_file(packed, folder / "model.safetensors", metadata={"format": "pt"})
    add_to_config(folder, {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]})
    built, _ = build(make_config(folder, sums_json))
    name = "model.layers.0.self_attn.q_proj"
    found = built.model.get_submodule(f"base_model.model.{name}.base_layer").weight
    assert found.dtype == torch.float32
    expected = whole[f"{name}.weight"].float()
    assert 0 < (found - expected).norm() / expected.norm() < 2**-4, "three bits behind the point, half a unit"
    with pytest.raises(UserError, match="is quantised already"):
        build(make_config(folder, sums_json, model={"quantise": "nf4"}))


def test_weights_in_a_dtype_of_another_package_are_refused(language_bases):
    model = torch.nn.Linear(4, 4, bias=False).to(torch.float8_e4m3fn)
    with pytest.raises(ModelError, match="which mean nothing without their scales"):
        quantise.take_layers(model, ModelSection(path="a"))
