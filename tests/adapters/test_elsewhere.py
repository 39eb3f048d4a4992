"""Adapters that plain peft wrote, in all of LoRA's forms: loaded, asked, merged, switched off, or refused in words."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from lorafy import load
from lorafy.evaluation.verify import relative_difference
from lorafy.models.precision import Precision
from lorafy.types import ModelError
from lorafy.workflows.evaluate import verify
from lorafy.workflows.load import load_trained
from tiny_models import logits_of, move_trainable
from tolerances import FLOAT32_ROUNDING

CPU = Precision(torch.float32, torch.device("cpu"))
TEXTS = ["win a free phone , call now", "see you at lunch", "ok"]

FORMS: dict[str, dict[str, Any]] = {
    "lora": {},
    "patterns": {"rank_pattern": {r"0\..*query": 2, "^bert.encoder.layer.1.*value": 3}, "alpha_pattern": {"query": 5}},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True, "rank_pattern": {"query": 9}},
    "all biases": {"bias": "all"},
    "biases of its layers": {"bias": "lora_only"},
    "whole modules": {"modules_to_save": ["classifier", "LayerNorm", "pooler"]},
    "rows": {"trainable_token_indices": [3, 9]},
    "one layer": {"layers_to_transform": [1], "layers_pattern": "layer"},
    "all but": {"target_modules": "all-linear", "exclude_modules": ["pooler.dense", "classifier"]},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "everything": {"use_dora": True, "use_rslora": True, "bias": "all", "modules_to_save": ["classifier", "pooler"]},
}


def plain(kind: Any, base: Path, **settings: Any) -> Any:
    """A base as transformers loads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = kind.from_pretrained(base, **settings)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model.config.pad_token_id = tokenizer.eos_token_id if tokenizer.pad_token is None else tokenizer.pad_token_id
    return model


def written_by_peft(model: Any, folder: Path, **settings: Any) -> Any:
    """The model that stands for one that peft alone trained and saved."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        peft_model = peft.get_peft_model(model, peft.LoraConfig(r=4, **settings))
        move_trainable(peft_model)
        peft_model.save_pretrained(str(folder))
    return peft_model


def change_config(folder: Path, change: Any) -> None:
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    change(settings)
    path.write_text(json.dumps(settings), encoding="utf-8")


@pytest.mark.parametrize("form", FORMS)
def test_a_classifier_of_peft_alone(base_models, tmp_path: Path, form: str) -> None:
    base = base_models["bert"]
    settings = {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"} | FORMS[form]
    theirs = written_by_peft(plain(AutoModelForSequenceClassification, base, num_labels=2), tmp_path, **settings)
    inputs = AutoTokenizer.from_pretrained(base)(TEXTS, return_tensors="pt", padding=True)
    expected = logits_of(theirs, inputs)
    trained = load_trained(tmp_path)
    found = trained.logits(inputs, CPU)
    assert relative_difference(found, expected) < (FLOAT32_ROUNDING if form in ("pissa", "olora") else 1e-9)
    untouched = plain(AutoModelForSequenceClassification, base, num_labels=2)
    head = theirs.base_model.model.classifier.modules_to_save["default"]
    untouched.classifier.load_state_dict(head.state_dict())
    assert torch.equal(trained.base_logits(inputs, CPU), logits_of(untouched, inputs)), "the base's own voice"
    checks = verify(trained)  # which merges
    assert checks is not None and checks["passed"], checks
    names = [check["name"] for check in checks["checks"]]
    assert names == ["differs_from_base", "merged_equals_adapter"], "nothing else was recorded"
    assert relative_difference(trained.logits(inputs, CPU), expected) < FLOAT32_ROUNDING
    assert [prediction.text for prediction in load(tmp_path).classify(TEXTS)] == TEXTS
    assert trained.method is not None and trained.method.title == ("DoRA" if settings.get("use_dora") else "LoRA")


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("beside", [{}, {"trainable_token_indices": [5, 256]}, {"use_dora": True, "bias": "all"}])
def test_a_language_model_of_peft_alone(language_bases, tmp_path: Path, name: str, beside: dict[str, Any]) -> None:
    """Qwen3's output layer is its table of embeddings."""
    base = language_bases[name]
    settings = {"target_modules": "all-linear", "task_type": "CAUSAL_LM", "fan_in_fan_out": name == "gpt2"} | beside
    theirs = written_by_peft(plain(AutoModelForCausalLM, base), tmp_path, **settings)
    inputs = AutoTokenizer.from_pretrained(base)("What is 2 and 3?", return_tensors="pt")
    expected = logits_of(theirs, inputs)
    trained = load_trained(tmp_path)
    with torch.inference_mode():
        assert torch.equal(trained.model(**inputs).logits, expected)
        assert trained.method is not None
        with trained.method.as_base(trained.model, [], lambda: trained.load_base().model.eval()) as model:
            assert torch.equal(model(**inputs).logits, logits_of(plain(AutoModelForCausalLM, base), inputs))
        assert torch.equal(trained.model(**inputs).logits, expected)
    trained.merge()
    assert relative_difference(logits_of(trained.model, inputs), expected) < FLOAT32_ROUNDING


def test_a_file_of_an_older_peft(base_models, tmp_path: Path) -> None:
    """Its adapter_config.json knew the first fields alone."""
    base = base_models["bert"]
    settings = {"target_modules": ["query", "value"], "task_type": "SEQ_CLS", "modules_to_save": ["classifier"]}
    theirs = written_by_peft(plain(AutoModelForSequenceClassification, base, num_labels=2), tmp_path, **settings)
    first = {"base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode", "init_lora_weights", "lora_alpha"}
    first |= {"lora_dropout", "modules_to_save", "peft_type", "r", "target_modules", "task_type"}

    def shorten(settings: dict[str, Any]) -> None:
        for key in set(settings) - first:
            del settings[key]

    change_config(tmp_path, shorten)
    inputs = AutoTokenizer.from_pretrained(base)(TEXTS, return_tensors="pt", padding=True)
    assert torch.equal(load_trained(tmp_path).logits(inputs, CPU), logits_of(theirs, inputs))


def test_a_file_of_a_newer_peft(base_models, tmp_path: Path) -> None:
    base = base_models["bert"]
    settings = {"target_modules": ["query"], "task_type": "SEQ_CLS"}
    theirs = written_by_peft(plain(AutoModelForSequenceClassification, base, num_labels=2), tmp_path, **settings)
    change_config(tmp_path, lambda settings: settings.update(some_later_field=None))
    inputs = AutoTokenizer.from_pretrained(base)(TEXTS, return_tensors="pt", padding=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's, of the field
        assert torch.equal(load_trained(tmp_path).logits(inputs, CPU), logits_of(theirs, inputs))


@pytest.mark.parametrize("start", ["pissa_niter_4", "lora_ga", "corda", "loftq"])
def test_a_start_that_only_its_own_base_holds_is_refused(base_models, tmp_path: Path, start: str) -> None:
    settings = {"target_modules": ["query"], "task_type": "SEQ_CLS"}
    written_by_peft(plain(AutoModelForSequenceClassification, base_models["bert"], num_labels=2), tmp_path, **settings)
    change_config(tmp_path, lambda settings: settings.update(init_lora_weights=start))
    with pytest.raises(ModelError, match=rf"a base that its start \({start}\) changed"):
        load_trained(tmp_path)


def test_an_adapter_that_does_not_fit_is_refused(base_models, tmp_path: Path) -> None:
    """DoRA said, but its lengths are not there."""
    settings = {"target_modules": ["query"], "task_type": "SEQ_CLS"}
    written_by_peft(plain(AutoModelForSequenceClassification, base_models["bert"], num_labels=2), tmp_path, **settings)
    change_config(tmp_path, lambda settings: settings.update(use_dora=True))
    with pytest.raises(ModelError, match="lora_magnitude_vector"):
        load_trained(tmp_path)


LANGUAGE: dict[str, Any] = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
@pytest.mark.parametrize("use_dora", [False, True])
def test_a_table_with_lora_is_loaded_where_it_is_the_base_s(language_bases, tmp_path, target: str, use_dora: bool):
    """peft then saves the whole table beside the adapter."""
    base, model = language_bases["llama"], plain(AutoModelForCausalLM, language_bases["llama"])
    settings = LANGUAGE | {"target_modules": [target, "q_proj"], "use_dora": use_dora}
    theirs = written_by_peft(model, tmp_path / "same", **settings)
    inputs = AutoTokenizer.from_pretrained(base)("What is 2 and 3?", return_tensors="pt")
    trained = load_trained(tmp_path / "same")
    with torch.inference_mode():
        assert torch.equal(trained.model(**inputs).logits, logits_of(theirs, inputs))
    checks = verify(trained)
    assert checks is not None and checks["passed"], checks
    changed = plain(AutoModelForCausalLM, base)
    with torch.no_grad():
        changed.get_submodule({"embed_tokens": "model.embed_tokens"}.get(target, target)).weight[3] += 1
    written_by_peft(changed, tmp_path / "changed", **settings)
    with pytest.raises(ModelError, match=rf"a table of its own, .*{target}, that is not the base's"):
        load_trained(tmp_path / "changed")


def test_without_a_word_for_its_task_it_is_what_its_base_is(language_bases, tmp_path: Path) -> None:
    settings = LANGUAGE | {"task_type": None}
    written_by_peft(plain(AutoModelForCausalLM, language_bases["qwen3"]), tmp_path, **settings)
    assert load_trained(tmp_path).task.name == "causal_lm"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
            "PROMPT_TUNING trains what is put before",
        ),
        (
            peft.PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
            "PREFIX_TUNING trains what is put before",
        ),
        (peft.LoraConfig(**LANGUAGE, alora_invocation_tokens=[65, 66]), "says alora_invocation_tokens: no weights"),
        (peft.LoraConfig(**LANGUAGE, layer_replication=[(0, 2), (0, 2)]), "says layer_replication: no weights"),
        (peft.LoraConfig(**LANGUAGE, lora_bias=True), "lora_bias trains a bias of model.layers.0.self_attn.q_proj"),
    ],
    ids=["prompt", "prefix", "alora", "replicated", "lora_bias"],
)
def test_what_cannot_be_merged_is_refused(language_bases, tmp_path: Path, config: Any, said: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft.get_peft_model(plain(AutoModelForCausalLM, language_bases["llama"]), config).save_pretrained(str(tmp_path))
    with pytest.raises(ModelError) as caught:
        load_trained(tmp_path)
    assert said in str(caught.value) and "use it with peft itself" in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        peft.IA3Config(target_modules=["q_proj"], feedforward_modules=[], task_type="CAUSAL_LM"),
        peft.LoHaConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    ],
    ids=["ia3", "loha"],
)
def test_other_methods_of_peft_are_loaded_merged_and_verified(language_bases, tmp_path: Path, config: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.get_peft_model(plain(AutoModelForCausalLM, language_bases["llama"]), config)
        move_trainable(theirs)
        theirs.save_pretrained(str(tmp_path))
    checks = verify(load_trained(tmp_path))
    assert checks is not None and checks["passed"], checks
