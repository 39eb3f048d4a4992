"""What was trained, on disk: read by plain peft, held against what should be there, merged."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import NoReturn

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lorafy import load
from lorafy.models.precision import Precision
from lorafy.plugins import load_method
from lorafy.run_directory import RunDirectory
from lorafy.tasks.classification import Classification
from lorafy.types import ModelError
from lorafy.workflows.load import load_trained
from lorafy.workflows.save import write_trained
from plain_peft import by_peft
from tiny_models import LABELS, build, logits_of, make_config, move_trainable
from tolerances import FLOAT32_ROUNDING

ARCHITECTURES = ["bert", "distilbert", "roberta", "gpt2"]
CPU = Precision(torch.float32, torch.device("cpu"))
TEXTS = ["win a free phone , call now", "see you at lunch", "ok"]


def saved(base: Path, data: Path, folder: Path, method: str = "lora"):
    """A model that stands for a trained one, saved as a run saves it: (folder, logits, inputs)."""
    built, prepared = build(make_config(base, data, adapter={"method": method}))
    move_trainable(built.model)
    run = RunDirectory(folder)
    write_trained(run, prepared, built, CPU)
    batch = prepared.task.collate(prepared.features["validation"])
    assert run.trained is not None
    return run.trained, logits_of(built.model, batch.inputs), batch.inputs


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_plain_peft_reads_our_adapter(base_models, sms_csv, tmp_path: Path, name: str):
    folder, expected, inputs = saved(base_models[name], sms_csv, tmp_path)
    assert torch.equal(logits_of(by_peft(folder, base_models[name]), inputs), expected)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("method", ["lora", "full", "none"])
def test_loaded_equals_in_memory_and_merged_equals_adapter(base_models, sms_csv, tmp_path, name: str, method: str):
    folder, expected, inputs = saved(base_models[name], sms_csv, tmp_path, method)
    trained = load_trained(folder)
    assert torch.equal(trained.logits(inputs, CPU), expected)
    trained.merge()
    torch.testing.assert_close(trained.logits(inputs, CPU), expected, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)
    assert not any("lora" in name for name, _ in trained.model.named_parameters())
    assert isinstance(trained.task, Classification) and trained.task.label_names == LABELS


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_adapter_of_peft_alone_is_loaded(base_models, sms_csv, tmp_path: Path, name: str):
    heads = {"distilbert": ["pre_classifier", "classifier"]}.get(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = AutoModelForSequenceClassification.from_pretrained(base_models[name], num_labels=3)
        tokenizer = AutoTokenizer.from_pretrained(base_models[name])
        base.config.pad_token_id = tokenizer.pad_token_id if name != "gpt2" else tokenizer.eos_token_id
        targets = {"distilbert": ["q_lin", "v_lin"], "gpt2": ["c_attn"]}.get(name, ["query", "value"])
        settings = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=targets, modules_to_save=heads)
        model = peft.get_peft_model(base, settings)
        move_trainable(model)
        model.save_pretrained(str(tmp_path))
    inputs = tokenizer(TEXTS[0], return_tensors="pt")
    assert torch.equal(load_trained(tmp_path).logits(inputs, CPU), logits_of(model, inputs))
    classifier = load(tmp_path)
    assert [prediction.text for prediction in classifier.classify(TEXTS)] == TEXTS
    assert classifier.labels == ["0", "1", "2"], "the base knows two labels, the adapter three: it gets numbers"


def test_an_adapter_over_a_random_pooler_is_refused(tiny_bert: Path, tmp_path: Path):
    """A base saved without its pooler gets a random one, and peft saves only the classifier above it."""
    base_folder = Path(shutil.copytree(tiny_bert, tmp_path / "base"))
    weights = base_folder / "model.safetensors"
    change_tensors(weights, lambda tensors: [tensors.pop(name) for name in list(tensors) if "pooler" in name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = AutoModelForSequenceClassification.from_pretrained(base_folder, num_labels=2)
        settings = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query"])
        peft.get_peft_model(base, settings).save_pretrained(str(tmp_path / "adapter"))
    with pytest.raises(ModelError, match=r"neither .* holds bert\.pooler\.dense\.bias, bert\.pooler\.dense\.weight"):
        load(tmp_path / "adapter")


def change_tensors(path: Path, change) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("method", ["lora", "none"])
def test_a_missing_tensor_is_named(base_models, sms_csv, tmp_path: Path, method: str):
    folder, *_ = saved(base_models["bert"], sms_csv, tmp_path, method)
    name = {
        "lora": "base_model.model.bert.encoder.layer.1.attention.self.query.lora_B.weight",
        "none": "classifier.bias",
    }
    change_tensors(folder / load_method(method).weights, lambda tensors: tensors.pop(name[method]))
    with pytest.raises(ModelError) as caught:
        load_trained(folder)
    assert name[method] in str(caught.value)


@pytest.mark.parametrize("method", ["lora", "none"])
def test_a_tensor_too_many_is_named(base_models, sms_csv, tmp_path: Path, method: str):
    folder, *_ = saved(base_models["bert"], sms_csv, tmp_path, method)
    change_tensors(folder / load_method(method).weights, lambda tensors: tensors.update(extra=torch.ones(1)))
    with pytest.raises(ModelError, match="extra"):
        load_trained(folder)


@pytest.mark.parametrize("method", ["lora", "full", "none"])
def test_a_tensor_of_another_shape_is_named(base_models, sms_csv, tmp_path: Path, method: str):
    folder, *_ = saved(base_models["bert"], sms_csv, tmp_path, method)
    path = folder / load_method(method).weights
    name = next(name for name in load_file(path) if name.endswith("classifier.weight"))
    change_tensors(path, lambda tensors: tensors.update({name: torch.ones(5, 32)}))
    with pytest.raises(ModelError, match=r"classifier\..*weight"):
        load_trained(folder)


def test_a_missing_tensor_of_a_full_model_is_named(base_models, sms_csv, tmp_path: Path):
    for name in ("classifier.bias", "bert.pooler.dense.weight", "bert.encoder.layer.0.output.dense.weight"):
        folder, *_ = saved(base_models["bert"], sms_csv, tmp_path / name, "full")
        change_tensors(folder / load_method("full").weights, lambda tensors, name=name: tensors.pop(name))
        with pytest.raises(ModelError) as caught:
            load_trained(folder)
        assert name in str(caught.value)


@pytest.mark.parametrize("method", ["lora", "full", "none"])
def test_a_file_cut_short_is_an_error_and_no_traceback(base_models, sms_csv, tmp_path: Path, method: str):
    folder, *_ = saved(base_models["bert"], sms_csv, tmp_path, method)
    path = folder / load_method(method).weights
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError):
        load_trained(folder)


def test_the_adapter_names_its_base_as_others_know_it(base_models, sms_csv, tmp_path: Path):
    folder, *_ = saved(base_models["bert"], sms_csv, tmp_path)
    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert settings["base_model_name_or_path"] == str(base_models["bert"])
    assert settings["task_type"] == "SEQ_CLS" and settings["bias"] == "none"


def test_saving_leaves_the_model_as_it_is(base_models, sms_csv, tmp_path: Path):
    built, prepared = build(make_config(base_models["bert"], sms_csv))
    move_trainable(built.model)
    before = {name: tensor.clone() for name, tensor in built.model.state_dict().items()}
    write_trained(RunDirectory(tmp_path), prepared, built, CPU)
    assert all(torch.equal(tensor, before[name]) for name, tensor in built.model.state_dict().items())


def test_switching_lora_off_leaves_the_trained_head(base_models, sms_csv, tmp_path: Path):
    folder, expected, inputs = saved(base_models["bert"], sms_csv, tmp_path)
    trained = load_trained(folder)

    def load_base() -> NoReturn:
        raise AssertionError("the base is the model itself")

    method = trained.method
    assert method is not None
    with method.as_base(trained.model, trained.base.head, load_base) as model:
        off = logits_of(model, inputs)
    base = load_trained(folder).model
    for name, parameter in base.named_parameters():
        if ".lora_B." in name:
            parameter.data.zero_()
    assert torch.equal(off, logits_of(base, inputs)) and not torch.equal(off, expected)
    assert torch.equal(logits_of(trained.model, inputs), expected)
