"""peft's LoRA layer as one operation, for models that no family reads: Linear (GPT-NeoX) and Conv1D (GPT-2's
classifier)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from both_paths import CPU, build_plain, joined, largest_difference, loss_and_gradients
from transformers.pytorch_utils import Conv1D

from lorafy.engine.fast_path import build_fused_layers
from lorafy.engine.weights import Unsupported
from lorafy.kernels import reference
from lorafy.kernels.peft_layer import FusedLinear
from lorafy.training.paths import FusedLayersPath, PlainPath
from lorafy.types import Batch, Features
from tolerances import BFLOAT16_STORED, BFLOAT16_TIMES_TORCH, FLOAT32_ROUNDING

pytestmark = pytest.mark.usefixtures("compiler")


def build_both(
    base: Path, data: Path, dtype: torch.dtype = torch.float32, dropout: float = 0.0
) -> tuple[PlainPath, FusedLayersPath, Any]:
    plain, features = build_plain(base, data, {"r": 5, "dropout": dropout}, dtype)
    return plain, FusedLayersPath(plain, build_fused_layers(plain.model, dtype, CPU)), features


@pytest.fixture(params=["neox", "gpt2"])
def base(request: pytest.FixtureRequest, neox: Path, family_bases: dict[str, Path]) -> Path:
    return neox if request.param == "neox" else family_bases["gpt2"]


def test_both_kinds_of_layer_are_fused(neox: Path, family_bases: dict[str, Path], ragged: dict[str, Path]) -> None:
    for folder, kind in ((neox, torch.nn.Linear), (family_bases["gpt2"], Conv1D)):
        _, fused, _ = build_both(folder, ragged["bert"])
        assert fused.layers
        assert all(isinstance(layer.base_layer, kind) for layer, _ in fused.layers)


def test_loss_and_gradients_are_the_model_s(base: Path, ragged: dict[str, Path]) -> None:
    plain, fused, features = build_both(base, ragged["bert"])
    expected, found = (loss_and_gradients(path, plain.model, features) for path in (plain, fused))
    assert largest_difference(found, expected) < FLOAT32_ROUNDING


def test_in_bfloat16_it_is_as_exact_as_peft(base: Path, ragged: dict[str, Path]) -> None:
    single, _, features = build_both(base, ragged["bert"])
    exact = joined(loss_and_gradients(single, single.model, features))
    plain, fused, features = build_both(base, ragged["bert"], torch.bfloat16)
    theirs, ours = (
        (joined(loss_and_gradients(path, plain.model, features)) - exact).norm() / exact.norm()
        for path in (plain, fused)
    )
    assert ours < max(BFLOAT16_TIMES_TORCH * theirs, BFLOAT16_STORED)


def test_with_dropout_a_layer_is_the_reference_operation(base: Path, ragged: dict[str, Path]) -> None:
    """By the masks of the seeds that it draws from torch's generator."""
    plain, fused, _ = build_both(base, ragged["bert"], dropout=0.3)
    plain.model.train()
    for layer, linear in fused.layers:
        assert layer.in_features is not None
        x = torch.randn(3, 7, layer.in_features, generator=torch.Generator().manual_seed(0))
        layer.fused = linear
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(4)
            found = layer(x)
            torch.manual_seed(4)
            seeds = torch.randint(-(2**31), 2**31, (21,), dtype=torch.int32)
            expected = reference.lora_linear(x.flatten(0, 1), linear, seeds).view(found.shape)
        assert (found - expected).norm() < FLOAT32_ROUNDING * expected.norm()


def test_the_seed_of_the_step_decides_what_is_dropped(base: Path, ragged: dict[str, Path]) -> None:
    plain, fused, features = build_both(base, ragged["bert"], dropout=0.3)
    plain.model.train()
    found = []
    with torch.random.fork_rng():
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            found.append(loss_and_gradients(fused, plain.model, features))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert largest_difference(found[2], found[0]) > 0.01


def layers(path: FusedLayersPath) -> list[FusedLinear]:
    return [layer for layer, _ in path.layers]


def test_outside_of_the_loss_layers_compute_as_peft_s_do(base: Path, ragged: dict[str, Path]) -> None:
    """Evaluation and verification do, after an error too."""
    plain, fused, features = build_both(base, ragged["bert"])

    def broken(*_: Any) -> None:
        assert all(layer.fused is not None for layer in layers(fused))
        raise MemoryError

    fused.loss(plain.task.collate(features))
    assert all(layer.fused is None for layer in layers(fused))
    handle = plain.model.register_forward_pre_hook(broken)
    with pytest.raises(MemoryError):
        fused.loss(plain.task.collate(features))
    handle.remove()
    assert all(layer.fused is None for layer in layers(fused))


@pytest.mark.parametrize("state", ["merged", "disabled"])
def test_an_adapter_that_is_merged_or_off_is_not_added_again(base: Path, ragged: dict[str, Path], state: str) -> None:
    plain, fused, features = build_both(base, ragged["bert"])
    batch: Batch = plain.task.collate(features)
    if state == "merged":
        plain.model.merge_adapter()
    else:
        plain.model.base_model.disable_adapter_layers()
    with torch.no_grad():
        assert torch.equal(fused.loss(batch).loss_sum, plain.loss(batch).loss_sum)


def test_a_model_without_lora_layers(neox: Path, ragged: dict[str, Path]) -> None:
    plain, _ = build_plain(neox, ragged["bert"], {"method": "none"})
    with pytest.raises(Unsupported, match="no LoRA layers"):
        build_fused_layers(plain.model, torch.float32, CPU)


def test_batches_are_the_plain_ones(neox: Path, ragged: dict[str, Path]) -> None:
    plain, fused, features = build_both(neox, ragged["bert"])
    some: list[Features] = list(features)
    ours, theirs = (path.batches(some, range(len(some)), 1) for path in (fused, plain))
    assert [batch.rows for batch in ours] == [batch.rows for batch in theirs]
