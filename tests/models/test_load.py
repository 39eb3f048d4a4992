"""Base models: which parts are new, what is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from lorafy.config.schema import ModelSection
from lorafy.models import load as models_load
from lorafy.models.load import open_source
from lorafy.types import ModelError, UserError
from lorafy.workflows.prepare import prepare
from tiny_models import LABELS, build, load_classifier, logits_of, make_config


@pytest.fixture
def copied_bert(tiny_bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bert, tmp_path / "bert"))


def without(folder: Path, part: str) -> list[str]:
    """Takes tensors out of a checkpoint; returns their names."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    gone = [name for name in tensors if part in name]
    save_file({name: tensor for name, tensor in tensors.items() if name not in gone}, path, metadata={"format": "pt"})
    return gone


def load(folder: Path | str, seed: int = 0):
    return load_classifier(ModelSection(path=str(folder)), LABELS, 0, seed)


def test_a_missing_encoder_weight_is_refused_by_name(copied_bert: Path):
    gone = without(copied_bert, "encoder.layer.1.attention.self.key.weight")
    with pytest.raises(ModelError, match=gone[0].replace(".", r"\.")):
        load(copied_bert)


def test_a_missing_pooler_is_trained_with_the_head(copied_bert: Path, sms_csv: Path):
    without(copied_bert, "pooler")
    built, _ = build(make_config(copied_bert, sms_csv))
    assert built.base.head == ["classifier", "bert.pooler"]
    assert built.base.new_parameters == 32 * 2 + 2 + 32 * 32 + 32
    trained = [name for name, p in built.model.named_parameters() if p.requires_grad]
    assert any("pooler.modules_to_save.default.dense.weight" in name for name in trained)
    assert not any("pooler" in name and "lora" in name for name in trained)


def test_a_new_head_depends_on_the_seed_alone(tiny_bert: Path):
    first, again, other = load(tiny_bert, 1), load(tiny_bert, 1), load(tiny_bert, 2)
    assert torch.equal(first.model.classifier.weight, again.model.classifier.weight)
    assert not torch.equal(first.model.classifier.weight, other.model.classifier.weight)
    assert first.fingerprint == again.fingerprint == other.fingerprint, "the head is no part of the base"


def test_a_head_that_fits_is_kept_and_one_for_other_labels_is_new(tiny_bert: Path, tmp_path: Path):
    model = load(tiny_bert).model
    model.save_pretrained(tmp_path)
    kept = load(tmp_path, seed=5)
    assert kept.new_parameters == 0 and torch.equal(kept.model.classifier.weight, model.classifier.weight)
    three = load_classifier(ModelSection(path=str(tmp_path)), ["a", "b", "c"], 0, 0)
    assert three.new_parameters == 3 * 32 + 3
    assert three.model.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_gpt2_pads_with_its_end_token_and_padding_changes_nothing(base_models: dict[str, Path], sms_csv: Path):
    built, prepared = build(make_config(base_models["gpt2"], sms_csv))
    tokenizer = prepared.task.tokenizer
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == built.model.config.pad_token_id
    features = prepared.features["train"][:6]
    assert len({len(feature) for feature in features}) > 1
    padded = logits_of(built.model, prepared.task.collate(features).inputs)
    alone = torch.cat([logits_of(built.model, prepared.task.collate([f]).inputs) for f in features])
    torch.testing.assert_close(padded, alone)


def test_a_tokenizer_without_pad_and_end_is_refused(base_models: dict[str, Path], tmp_path: Path):
    folder = Path(shutil.copytree(base_models["gpt2"], tmp_path / "gpt2"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings |= {"eos_token": None, "pad_token": None, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    if AutoTokenizer.from_pretrained(folder).eos_token is not None:
        pytest.skip("this version gives the tokenizer an end token all the same")
    with pytest.raises(ModelError, match="padding"):
        _ = open_source(ModelSection(path=str(folder))).tokenizer


@pytest.mark.parametrize(("name", "limit"), [("bert", 64), ("distilbert", 64), ("roberta", 128), ("gpt2", 128)])
def test_the_longest_text_is_the_models_limit(base_models: dict[str, Path], name: str, limit: int):
    source = open_source(ModelSection(path=str(base_models[name])))
    tokenizer = source.tokenizer
    tokenizer.model_max_length = 10**30  # as a tokenizer says that knows no limit
    assert source.longest(None, 512) == source.context_length == limit
    assert source.longest(12, 512) == 12
    assert source.longest(None, 10) == 10
    with pytest.raises(ModelError, match=f"the limit of .*: {limit} tokens"):
        source.longest(limit + 1, 512)
    ids = [5] * limit
    model = AutoModelForSequenceClassification.from_pretrained(base_models[name], pad_token_id=tokenizer.pad_token_id)
    logits_of(model, {"input_ids": torch.tensor([ids])})


def test_an_unknown_name_without_a_network_says_what_to_do(sms_csv: Path):
    with pytest.raises(UserError) as caught:
        build(make_config("no-such-org/no-such-model", sms_csv))
    assert "no-such-org/no-such-model" in str(caught.value) and "minilm" in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"this is no safetensors file"])
def test_a_folder_without_usable_weights_is_refused(copied_bert: Path, content: bytes | None):
    path = copied_bert / "model.safetensors"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ModelError, match="cannot load a model from"):
        load(copied_bert)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(ModelError, match="no such folder"):
        open_source(ModelSection(path=str(tmp_path / "nothing")))


def test_loading_leaves_the_random_state_alone(tiny_bert: Path):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load(tiny_bert, seed=9)
    assert torch.equal(torch.rand(2), expected)


def test_the_fingerprint_sees_another_base(copied_bert: Path):
    before = load(copied_bert).fingerprint
    path = copied_bert / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("layer.0.output.dense.weight"))
    save_file(tensors | {name: tensors[name] * 1.001}, path, metadata={"format": "pt"})
    assert load(copied_bert).fingerprint != before


def test_a_models_config_is_read_once(
    monkeypatch: pytest.MonkeyPatch, base_models: dict[str, Path], sms_csv: Path
) -> None:
    """lorafy's own questions are all answered from one reading; transformers reads it for itself."""
    asked: list[str] = []

    class Counted(AutoConfig):
        @classmethod
        def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Any:
            asked.append(str(pretrained_model_name_or_path))
            return AutoConfig.from_pretrained(pretrained_model_name_or_path, **kwargs)

    monkeypatch.setattr(models_load, "AutoConfig", Counted)
    prepare(make_config(base_models["bert"], sms_csv))
    assert len(asked) == 1
