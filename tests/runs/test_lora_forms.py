"""Whole runs of LoRA's other forms on real weights, MiniLM and stories260K: path, verification, the base's voice."""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

import lorafy
from language_models import save_language_model, write_sums
from lorafy.evaluation.verify import relative_difference
from lorafy.kernels.build import COMPILERS
from lorafy.models.load import open_source
from lorafy.models.precision import Precision
from lorafy.models.trained_files import read_manifest
from lorafy.run_directory import read_json
from lorafy.types import ModelError
from lorafy.workflows.evaluate import verify
from lorafy.workflows.load import load_trained
from tiny_models import build, make_config
from tolerances import FLOAT32_ROUNDING
from trained_runs import train

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not any(map(shutil.which, COMPILERS)),
    reason="compiled operations need Linux and a C++ compiler",
)

CPU = Precision(torch.float32, torch.device("cpu"))
FORMS: dict[str, dict[str, Any]] = {
    "lora": {},
    "lora+": {"lr_ratio": 16},
    "rslora": {"use_rslora": True},
    "dora": {"method": "dora"},
    "pissa": {"method": "pissa"},
    "olora": {"method": "olora"},
    "beside": {"modules_to_save": ["pooler"], "trainable_token_indices": [101]},
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("form", FORMS)
def test_a_classifier_from_minilm(sms_csv: Path, tmp_path: Path, form: str, dtype: str) -> None:
    section = {"max_steps": 4, "batch_size": 8, "evaluate_every": None}
    config = make_config("minilm", sms_csv, model={"dtype": dtype}, adapter=FORMS[form], train=section)
    run = train(config, tmp_path / "run")
    assert read_json(run.summary)["fast_steps"] == (0 if form == "dora" else 4)
    assert run.trained is not None
    manifest = read_manifest(run.trained)
    assert manifest is not None
    untouched = load_trained(run.trained).load_base()
    assert manifest.base_fingerprint == untouched.fingerprint
    result = verify(load_trained(run.trained))
    assert result is not None and result["passed"], result
    assert [check["name"] for check in result["checks"]] == [
        "file_unchanged",
        "same_base",
        "reloaded_equals_memory",
        "differs_from_base",
        "merged_equals_adapter",
    ]


@pytest.mark.parametrize("form", ["lora", "dora", "pissa", "olora"])
def test_a_language_model_whose_base_speaks_as_it_came(stories: Path, tmp_path: Path, form: str) -> None:
    """Also of stories260K, whose end token and its row are trained by themselves."""
    section = {"max_steps": 6, "batch_size": 8, "evaluate_every": None, "learning_rate": 2e-3}
    sums = write_sums(tmp_path / "sums.json")
    run = train(make_config(stories, sums, adapter=FORMS[form], train=section), tmp_path / "run")
    assert run.trained is not None
    inputs = open_source(load_trained(run.trained).section).tokenizer("Once upon a time", return_tensors="pt")
    trained = load_trained(run.trained)
    plain = AutoModelForCausalLM.from_pretrained(stories).eval()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        expected = plain(**inputs).logits
        assert trained.method is not None
        with trained.method.as_base(trained.model, [], lambda: None) as base:
            assert torch.equal(base(**inputs).logits, expected)
        ours = trained.model(**inputs).logits
        assert not torch.equal(ours, expected)
        theirs = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(stories), run.trained).eval()
        assert torch.equal(theirs(**inputs).logits, ours)
    result = verify(load_trained(run.trained))
    assert result is not None and result["passed"], result
    talk = lorafy.load(run.path)
    assert len(talk.generate(["Hello"], temperature=0.0, max_new_tokens=4)) == 1


@pytest.mark.parametrize(
    ("name", "beside"),
    [(name, "rows") for name in ("llama", "qwen3", "gpt2", "opt")] + [(n, "whole") for n in ("llama", "qwen3", "opt")],
)
def test_what_is_trained_beside_lora_is_in_the_merged_model(tmp_path: Path, name: str, beside: str) -> None:
    """In a model whose output layer is its table of embeddings (all but the Llama) it is one table afterwards too."""
    base = save_language_model(name, tmp_path / "base")
    adapter: dict[str, Any] = {"modules_to_save": ["embed_tokens"]} if beside == "whole" else {}
    adapter |= {"trainable_token_indices": [256, 65] if beside == "rows" else None}
    section = {"max_steps": 4, "batch_size": 8, "evaluate_every": None, "learning_rate": 1e-2}
    run = train(make_config(base, write_sums(tmp_path / "sums.json"), adapter=adapter, train=section), tmp_path / "run")
    assert run.trained is not None
    result = verify(load_trained(run.trained))
    assert result is not None and result["passed"], result
    inputs = open_source(load_trained(run.trained).section).tokenizer("What is 2 and 3?", return_tensors="pt")
    with torch.inference_mode():
        expected = load_trained(run.trained).model(**inputs).logits
        lorafy.merge(run.path, tmp_path / "merged")
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
        assert relative_difference(merged(**inputs).logits, expected) < FLOAT32_ROUNDING
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plain = AutoModelForCausalLM.from_pretrained(base)
            theirs = peft.PeftModel.from_pretrained(plain, run.trained).eval()
        assert torch.equal(theirs(**inputs).logits, expected)
    tied = merged.get_output_embeddings().weight is merged.get_input_embeddings().weight
    assert tied == (name != "llama")


def test_a_table_of_which_peft_would_make_two_is_refused(tmp_path: Path) -> None:
    """GPT-2's, whose name peft does not know for one."""
    base = save_language_model("gpt2", tmp_path / "base")
    for name in ("wte", "lm_head"):
        config = make_config(base, write_sums(tmp_path / "sums.json"), adapter={"modules_to_save": [name]})
        with pytest.raises(ModelError, match=f"{name} is embeddings and output layer in one"):
            build(config)
