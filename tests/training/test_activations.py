"""Activation checkpointing: the same gradient bits for less memory, and taken only where memory asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from lorafy.data.batches import StepPlan
from lorafy.engine.fast_path import build_fast_path
from lorafy.engine.weights import Unsupported
from lorafy.models.parameters import hold_frozen_weights
from lorafy.models.precision import Precision
from lorafy.training.activations import SHARE_OF_FREE, Activations, fit_into_memory, measure_activations
from lorafy.training.paths import PlainPath, StepPath
from lorafy.types import ConfigError
from tiny_models import build, make_config, move_trainable
from trained_runs import metrics, train, trained_tensors

FLOAT32 = Precision(torch.float32, torch.device("cpu"))
SEED = 5


def gradients(path: StepPath, model: Any, features: Any, plan: StepPlan) -> torch.Tensor:
    torch.manual_seed(SEED)
    examples = plan.examples(0)
    for batch in path.batches([features[i] for i in examples], examples, SEED):
        path.loss(batch).loss_sum.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    found = torch.cat([p.grad.flatten() for p in trained])
    for p in trained:
        p.grad = None
    return found


@pytest.mark.parametrize("kind", ["fast", "plain"])
@pytest.mark.parametrize("architecture", ["bert", "qwen3"])
def test_computed_again_the_gradient_has_the_same_bits(
    kind: str,
    architecture: str,
    base_models: dict[str, Path],
    language_bases: dict[str, Path],
    sms_csv: Path,
    sums_json: Path,
) -> None:
    base, data = {"bert": (base_models["bert"], sms_csv), "qwen3": (language_bases["qwen3"], sums_json)}[architecture]
    config = make_config(base, data, adapter={"dropout": 0.2})
    built, prepared = build(config)
    model, features = built.model.train(), prepared.features["train"]
    move_trainable(model)
    hold_frozen_weights(model, torch.float32)
    plan = StepPlan(len(features), 16, SEED)
    path: StepPath = PlainPath(model, prepared.task, FLOAT32, None)
    if kind == "fast":
        path = build_fast_path(model, prepared.task.objective, FLOAT32.dtype, FLOAT32.device, None)
    expected, kept = gradients(path, model, features, plan), measure_activations(path, model, features, plan)
    again = path.checkpointed()
    assert torch.equal(gradients(again, model, features, plan), expected)
    assert measure_activations(again, model, features, plan).kept_bytes < 0.6 * kept.kept_bytes


def test_measuring_leaves_no_trace(base_models: dict[str, Path], sms_csv: Path) -> None:
    built, prepared = build(make_config(base_models["bert"], sms_csv, adapter={"dropout": 0.2}))
    model, features = built.model.eval(), prepared.features["train"]
    path, plan = PlainPath(model, prepared.task, FLOAT32, None), StepPlan(len(features), 16, SEED)
    before = torch.get_rng_state()
    once, twice = (measure_activations(path, model, features, plan) for _ in range(2))
    assert once.kept_bytes == twice.kept_bytes > 0
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training and all(p.grad is None for p in model.parameters())


class Wanted:
    """A path that says whether it was asked to checkpoint."""

    def checkpointed(self) -> Any:
        return "checkpointed"


class Cannot:
    def checkpointed(self) -> StepPath:
        raise Unsupported("this model has none")


LITTLE, MUCH = Activations(10, 100), Activations(int(100 * SHARE_OF_FREE), 100)


@pytest.mark.parametrize(
    ("wish", "found", "taken"),
    [("auto", LITTLE, False), ("auto", MUCH, True), (True, LITTLE, True), (False, MUCH, False)],
)
def test_it_is_taken_where_it_is_wished_or_needed(wish: Any, found: Activations, taken: bool) -> None:
    wanted = Wanted()
    path, note = fit_into_memory(cast(StepPath, wanted), wish, found)
    assert (path == "checkpointed") is taken and (note is not None) is taken
    assert taken or path is wanted


def test_a_model_without_it() -> None:
    path, note = fit_into_memory(cast(StepPath, Cannot()), "auto", MUCH)
    assert isinstance(path, Cannot) and note is not None and "this model has none" in note
    with pytest.raises(ConfigError, match="this model has none"):
        fit_into_memory(cast(StepPath, Cannot()), True, LITTLE)


def test_a_run_with_it_is_the_same_run(base_models: dict[str, Path], sms_csv: Path, tmp_path: Path) -> None:
    runs = []
    for wish in (False, True):
        settings = {"max_steps": 6, "activation_checkpointing": wish}
        config = make_config(base_models["bert"], sms_csv, adapter={"dropout": 0.1}, train=settings)
        runs.append(train(config, tmp_path / str(wish)))
    kept, again = runs
    assert metrics(kept) == metrics(again)
    theirs = trained_tensors(again)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in trained_tensors(kept).items())
