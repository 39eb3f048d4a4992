"""The fast path with the operations for a GPU: on a CPU as plain torch, on the device `meta` without any values, and on
a GPU where one is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from both_paths import Both, build_both, build_plain, largest_difference, loss_and_gradients
from families import FAMILIES

from lorafy.engine import fast_path
from lorafy.engine.fast_path import FastPath, read_network
from lorafy.engine.packed import exactly
from lorafy.kernels import gpu
from lorafy.models.precision import Precision
from lorafy.training import paths
from lorafy.training.paths import LARGEST_DIFFERENCE, Choice, PlainPath, choose_path, compare
from tolerances import FLOAT32_ROUNDING

every_family = pytest.mark.parametrize("family", FAMILIES)
CUDA = torch.device("cuda")


@pytest.fixture(scope="module")
def of_family(compiler: None, family_bases: dict[str, Path], ragged: dict[str, Path]) -> Callable[[str], Both]:
    def built(family: str) -> Both:
        both = build_both(family_bases[family], ragged[family], {"r": 5})
        return replace(both, fast=replace(both.fast, ops=gpu, round_rows=exactly))

    return cache(built)


@every_family
@pytest.mark.parametrize("recompute", [False, True])
def test_loss_and_gradients_are_the_model_s(
    of_family: Callable[[str], Both], varlen_on_a_cpu: None, family: str, recompute: bool
) -> None:
    both = of_family(family)
    fast = both.fast.checkpointed() if recompute else both.fast
    expected, found = (loss_and_gradients(path, both.model, both.features) for path in (both.plain, fast))
    assert largest_difference(found, expected) < FLOAT32_ROUNDING


@every_family
def test_no_row_is_of_no_sequence(of_family: Callable[[str], Both], family: str) -> None:
    both = of_family(family)
    (batch,) = both.fast.batches(both.features, range(len(both.features)), 0)
    starts = batch.inputs["starts"]
    assert len(batch.inputs["input_ids"]) == len(batch.inputs["seeds"]) == starts[-1]
    assert batch.longest == starts.diff().max()


@every_family
@pytest.mark.parametrize("recompute", [False, True])
def test_nothing_is_left_behind_and_nothing_is_waited_for(
    dropping_bases: dict[str, Path], ragged: dict[str, Path], family: str, recompute: bool
) -> None:
    """Tensors of `meta` refuse others beside them, and whoever asks for a value."""
    plain, features = build_plain(dropping_bases[family], ragged[family], {"r": 5, "dropout": 0.1}, torch.bfloat16)
    model = plain.model.to("meta")
    objective = plain.task.objective
    with pytest.MonkeyPatch.context() as patch:  # nested tensors ask a real device which kernel they have
        patch.setattr(gpu, "_ragged", lambda q, k, v, *rest: q + 0 * (k.sum() + v.sum()))
        network = read_network(model.get_base_model(), objective.reads, torch.bfloat16)
        path = FastPath(network, objective, gpu, round_rows=exactly, recompute=recompute)
        for batch in path.batches(features, range(len(features)), 3):
            path.loss(batch.to(torch.device("meta"))).loss_sum.backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert grads and all(grad is not None and grad.is_meta for grad in grads.values())


# ---- which path a GPU takes: a CPU in its place


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch, varlen_on_a_cpu: None) -> Iterator[dict[type, float]]:
    """How long a step takes on each path, set by the test."""
    times: dict[type, float] = {PlainPath: 2.0, FastPath: 1.0}
    monkeypatch.setattr(Precision, "autocast", lambda precision: torch.autocast("cpu", precision.dtype))
    monkeypatch.setattr(gpu, "require", lambda device: None)
    monkeypatch.setattr(gpu, "why_not_fused", lambda device: "no reason" if times.get(str) else None)
    monkeypatch.setattr(paths, "seconds_of_a_step", lambda path, *rest: times[type(path)])
    yield times


def choose_on_a_gpu(base: Path, data: Path, dtype: torch.dtype = torch.bfloat16, **settings: Any) -> Choice:
    plain, features = build_plain(base, data, {"r": 5}, dtype)
    plain = replace(plain, precision=Precision(dtype, CUDA))
    settings = {"fast_wanted": True, "num_processes": 1} | settings
    return choose_path(plain, plain.model, features=features, **settings)


def test_the_faster_one(seconds: dict[type, float], family_bases: dict[str, Path], ragged: dict[str, Path]) -> None:
    choice = choose_on_a_gpu(family_bases["llama"], ragged["llama"])
    assert choice.is_fast and isinstance(choice.path, FastPath) and choice.path.ops is gpu
    assert "2000.0 and 1000.0 ms" in choice.message


def test_not_the_slower_one(seconds: dict[type, float], family_bases: dict[str, Path], ragged: dict[str, Path]) -> None:
    seconds[FastPath] = 3.0
    choice = choose_on_a_gpu(family_bases["llama"], ragged["llama"])
    assert not choice.is_fast
    assert "not faster here: 2000.0 and 3000.0 ms" in choice.message


def test_a_resumed_run_keeps_it(
    seconds: dict[type, float], family_bases: dict[str, Path], ragged: dict[str, Path]
) -> None:
    seconds[FastPath] = 3.0
    assert choose_on_a_gpu(family_bases["llama"], ragged["llama"], resumed=True).is_fast


def test_without_triton_it_says_so(
    seconds: dict[type, float], family_bases: dict[str, Path], ragged: dict[str, Path]
) -> None:
    seconds[str] = 1.0
    choice = choose_on_a_gpu(family_bases["llama"], ragged["llama"])
    assert choice.is_fast and choice.message.startswith("fast path, its passes not fused (no reason), held against")


def test_only_in_bfloat16(family_bases: dict[str, Path], ragged: dict[str, Path]) -> None:
    choice = choose_on_a_gpu(family_bases["bert"], ragged["bert"], torch.float32)
    assert not choice.is_fast and "float32" in choice.message


def test_a_gpu_that_cannot(
    monkeypatch: pytest.MonkeyPatch, family_bases: dict[str, Path], ragged: dict[str, Path]
) -> None:
    def too_old(device: torch.device) -> None:
        raise gpu.CannotRun("this one is too old")

    monkeypatch.setattr(gpu, "require", too_old)
    choice = choose_on_a_gpu(family_bases["bert"], ragged["bert"])
    assert not choice.is_fast and "this one is too old" in choice.message


def test_a_kernel_that_fails(
    seconds: dict[type, float],
    monkeypatch: pytest.MonkeyPatch,
    family_bases: dict[str, Path],
    ragged: dict[str, Path],
) -> None:
    def fails(*arguments: Any, **settings: Any) -> torch.Tensor:
        raise RuntimeError("no kernel image is available\nmore lines")

    monkeypatch.setattr(gpu, "varlen", fails)
    choice = choose_on_a_gpu(family_bases["llama"], ragged["llama"])
    assert not choice.is_fast
    assert choice.message == "plain path; the fast one fails on the first examples: no kernel image is available"


# ---- on a GPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@every_family
def test_on_a_gpu_it_agrees_with_the_model(family_bases: dict[str, Path], ragged: dict[str, Path], family: str) -> None:
    plain, features = build_plain(family_bases[family], ragged[family], {"r": 5}, torch.bfloat16)
    plain = replace(plain, model=plain.model.to(CUDA), precision=Precision(torch.bfloat16, CUDA))
    fast = fast_path.build_fast_path(plain.model, plain.task.objective, torch.bfloat16, CUDA, None)
    of_one_class = paths.check_examples(features, plain.task)
    assert compare(plain, fast, plain.model, of_one_class).difference < LARGEST_DIFFERENCE[torch.bfloat16]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@every_family
@pytest.mark.parametrize("recompute", [False, True])
def test_on_a_gpu_the_same_seed_gives_the_same_gradients(
    dropping_bases: dict[str, Path], ragged: dict[str, Path], family: str, recompute: bool
) -> None:
    plain, features = build_plain(dropping_bases[family], ragged[family], {"r": 5, "dropout": 0.1}, torch.bfloat16)
    model = plain.model.to(CUDA).train()
    fast = fast_path.build_fast_path(model, plain.task.objective, torch.bfloat16, CUDA, None)
    found = []
    for path in (fast, fast.checkpointed() if recompute else fast):
        torch.manual_seed(7)
        for batch in path.batches(features, range(len(features)), 7):
            path.loss(batch.to(CUDA)).loss_sum.backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        found.append(torch.cat([p.grad.flatten() for p in trained]))
        for p in trained:
            p.grad = None
    torch.testing.assert_close(found[0], found[1])
