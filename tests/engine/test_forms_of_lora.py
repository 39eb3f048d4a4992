"""What is only another start, scale or rank of LoRA takes the fast path as it is; DoRA takes the plain one, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from both_paths import CPU, build_both, build_plain, joined, largest_difference, loss_and_gradients

from lorafy.engine.fast_path import build_fast_path, build_fused_layers
from lorafy.engine.weights import Unsupported
from lorafy.training.paths import choose_path
from tolerances import BFLOAT16_STORED, BFLOAT16_TIMES_TORCH, FLOAT32_ROUNDING

pytestmark = pytest.mark.usefixtures("compiler")

VARIANTS: dict[str, dict[str, Any]] = {
    "rslora": {"use_rslora": True},
    "lora+": {"lr_ratio": 16},
    "pissa": {"method": "pissa"},
    "olora": {"method": "olora"},
    "patterns": {"rank_pattern": {r"1\..*": 3}, "alpha_pattern": {r"0\..*": 5}},
    "one layer": {"layers_to_transform": 1},
}
FAMILIES = ["bert", "distilbert", "roberta"]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", FAMILIES)
def test_loss_and_gradients_are_the_model_s(family_bases, ragged: dict[str, Path], name: str, variant: str) -> None:
    both = build_both(family_bases[name], ragged[name], {"r": 4} | VARIANTS[variant])
    expected, found = (loss_and_gradients(path, both.model, both.features) for path in (both.plain, both.fast))
    assert largest_difference(found, expected) < FLOAT32_ROUNDING


@pytest.mark.parametrize("variant", ["pissa", "olora"])
def test_in_bfloat16_it_is_as_exact_as_peft(family_bases, ragged: dict[str, Path], variant: str) -> None:
    base, data, adapter = family_bases["bert"], ragged["bert"], {"r": 4} | VARIANTS[variant]
    single = build_both(base, data, adapter)
    exact = joined(loss_and_gradients(single.plain, single.model, single.features))
    both = build_both(base, data, adapter, torch.bfloat16)
    theirs, ours = (
        (joined(loss_and_gradients(path, both.model, both.features)) - exact).norm() / exact.norm()
        for path in (both.plain, both.fast)
    )
    assert ours < max(BFLOAT16_TIMES_TORCH * theirs, BFLOAT16_STORED)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3", "opt"])
@pytest.mark.parametrize("variant", ["rslora", "pissa", "olora"])
def test_language_models_too(family_bases, ragged: dict[str, Path], name: str, variant: str) -> None:
    if (name, variant) == ("gpt2", "olora"):
        pytest.skip("OLoRA on a Conv1D is refused")
    both = build_both(family_bases[name], ragged[name], {"r": 4} | VARIANTS[variant])
    expected, found = (loss_and_gradients(path, both.model, both.features) for path in (both.plain, both.fast))
    assert largest_difference(found, expected) < FLOAT32_ROUNDING


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3", "opt"])
def test_rows_of_tokens_are_trained_on_it(family_bases, ragged: dict[str, Path], name: str) -> None:
    """Qwen3's, GPT-2's and OPT's output layer is their table of embeddings; a Llama has two."""
    both = build_both(family_bases[name], ragged[name], {"r": 4, "trainable_token_indices": [65, 256, 3]})
    expected, found = (loss_and_gradients(path, both.model, both.features) for path in (both.plain, both.fast))
    assert sum("trainable_tokens" in name for name in expected) == (2 if name == "llama" else 1)
    assert largest_difference(found, expected) < FLOAT32_ROUNDING
    assert largest_difference(loss_and_gradients(both.by_reference(), both.model, both.features), expected) < (
        FLOAT32_ROUNDING
    )


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_rows_of_tokens_in_bfloat16(family_bases, ragged: dict[str, Path], name: str) -> None:
    adapter = {"r": 4, "trainable_token_indices": [65, 256]}
    single = build_both(family_bases[name], ragged[name], adapter)
    exact = joined(loss_and_gradients(single.plain, single.model, single.features))
    both = build_both(family_bases[name], ragged[name], adapter, torch.bfloat16)
    theirs, ours = (
        (joined(loss_and_gradients(path, both.model, both.features)) - exact).norm() / exact.norm()
        for path in (both.plain, both.fast)
    )
    assert ours < max(BFLOAT16_TIMES_TORCH * theirs, BFLOAT16_STORED)


def test_dora_takes_the_plain_path_and_says_why(family_bases, ragged: dict[str, Path]) -> None:
    plain, features = build_plain(family_bases["bert"], ragged["bert"], {"r": 4, "method": "dora"})
    choice = choose_path(plain, plain.model, fast_wanted=True, num_processes=1, features=features)
    assert not choice.is_fast and "DoRA divides by the length of each row of W + BA" in choice.message
    with pytest.raises(Unsupported, match="DoRA"):
        build_fused_layers(plain.model, torch.float32, CPU)


def test_modules_that_are_trained_whole_are_not_on_it(family_bases, ragged: dict[str, Path]) -> None:
    adapter = {"r": 4, "modules_to_save": ["LayerNorm"]}
    plain, features = build_plain(family_bases["bert"], ragged["bert"], adapter)
    with pytest.raises(Unsupported, match="norms are trained"):
        build_fast_path(plain.model, plain.task.objective, torch.float32, CPU, None)
    choice = choose_path(plain, plain.model, fast_wanted=True, num_processes=1, features=features)
    assert choice.is_fast and choice.message.startswith("plain path with fused LoRA layers (norms are trained)")
