"""The mathematics of a step against plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification

from lorafy.adapter_contract import ParameterGroup
from lorafy.config.schema import AdapterSection, TrainSection
from lorafy.models.precision import Precision
from lorafy.objectives.classes import ClassCrossEntropy
from lorafy.plugins import load_method
from lorafy.tasks.classification import Classification
from lorafy.training.optim import make_optimizer
from lorafy.training.paths import PlainPath
from lorafy.training.step import Stepper
from lorafy.types import IGNORE_INDEX, Batch, Features, LossOutput, NonFiniteLoss
from tolerances import FLOAT32_ROUNDING, FLOAT64_ROUNDING, FLOAT64_UPDATES

CPU = torch.device("cpu")
SPLITS = [
    [[0, 1, 2, 3, 4, 5]],
    [[0], [1], [2], [3], [4], [5]],
    [[5, 0], [3, 1, 2, 4]],
    [[2], [0, 1, 3, 4, 5]],
]


class PadId:
    pad_token_id = 0


class Float64Task:
    """The Task and the Objective protocol without a cast: what is left is the step's own arithmetic."""

    @property
    def objective(self) -> Float64Task:
        return self

    def collate(self, features: Sequence[Features]) -> Batch:
        return Classification(PadId(), ["a", "b", "c"], 64).collate(features)

    def loss(self, model: Any, batch: Batch) -> LossOutput:
        logits = model(**batch.inputs).logits
        loss = functional.cross_entropy(logits, batch.labels, reduction="sum", ignore_index=IGNORE_INDEX)
        return LossOutput(loss, (logits.argmax(-1) == batch.labels).sum())


def make_features() -> list[Features]:
    generator = torch.Generator().manual_seed(1)
    lengths = [3, 9, 2, 14, 5, 5]
    ids = [torch.randint(1, 40, (length,), generator=generator).tolist() for length in lengths]
    return [Features(each, [index % 3], index) for index, each in enumerate(ids)]


def make_model(dtype: torch.dtype = torch.float64) -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(  # type: ignore[call-arg]  # num_labels is read, though its signature lacks it
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=3,
    )
    model = BertForSequenceClassification(config)
    return model.to(dtype).train()  # type: ignore[arg-type]  # transformers' wrapper hides `self` from mypy


def grad_of(parameter: torch.Tensor) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def make_stepper(model: Any, task: Any, max_grad_norm: float | None = None, **settings: Any) -> Stepper:
    optimizer = make_optimizer(load_method("full").parameter_groups(model, AdapterSection()), TrainSection(**settings))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    precision = Precision(torch.float32, CPU)
    path = PlainPath(model, task, precision, None)
    return Stepper(model, path, optimizer, scaler, Accelerator(), precision, max_grad_norm, lambda number: None)


def gradient_of_split(split: list[list[int]], task: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What the optimizer is given for these micro-batches."""
    features, model = make_features(), make_model(dtype)
    stepper, seen = make_stepper(model, task), {}
    stepper.optimizer.register_step_pre_hook(
        lambda *_: seen.update({name: grad_of(p).clone() for name, p in model.named_parameters()})
    )
    batches = [task.collate([features[index] for index in cut]) for cut in split]
    stepper.step(batches, num_targets=6, learning_rate=0.0, seed=0, number=1)
    return seen


def plain_gradient(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Mean cross-entropy over one padded batch, as in any tutorial."""
    model = make_model(dtype)
    batch = Float64Task().collate(make_features())
    functional.cross_entropy(model(**batch.inputs).logits, batch.labels).backward()
    return {name: grad_of(p) for name, p in model.named_parameters()}


def assert_near(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    assert set(found) == set(expected)
    largest = max(tensor.abs().max().item() for tensor in expected.values())
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=tolerance, atol=tolerance * largest, msg=name)


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_any_split_has_the_gradient_of_the_plain_mean(split: list[list[int]]):
    assert_near(gradient_of_split(split, Float64Task(), torch.float64), plain_gradient(torch.float64), FLOAT64_ROUNDING)


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_any_split_has_the_gradient_of_the_plain_mean_with_the_real_task(split: list[list[int]]):
    task = Classification(PadId(), ["a", "b", "c"], 64)  # casts logits to float32
    assert_near(gradient_of_split(split, task, torch.float32), plain_gradient(torch.float32), FLOAT32_ROUNDING)


@pytest.mark.parametrize("name", ["GRADIENT_ACCUMULATION_STEPS", "MIXED_PRECISION"])
def test_a_launchers_settings_do_not_change_the_step(monkeypatch: pytest.MonkeyPatch, name: str):
    """`accelerate launch` hands its own config file to the process by these variables."""
    from accelerate.state import AcceleratorState

    from lorafy.training.processes import make_accelerator

    AcceleratorState._reset_state(True)
    monkeypatch.setenv(f"ACCELERATE_{name}", {"GRADIENT_ACCUMULATION_STEPS": "4", "MIXED_PRECISION": "bf16"}[name])
    accelerator = make_accelerator()
    assert (accelerator.gradient_accumulation_steps, accelerator.mixed_precision) == (1, "no")
    AcceleratorState._reset_state(True)


@pytest.mark.parametrize("max_grad_norm", [None, 1e-3, 1e3])
def test_three_steps_equal_plain_torch(max_grad_norm: float | None):
    features, split = make_features(), SPLITS[2]
    ours, reference = make_model(), make_model()
    stepper = make_stepper(ours, Float64Task(), max_grad_norm, weight_decay=0.1)
    matrices = [p for p in reference.parameters() if p.ndim >= 2]
    others = [p for p in reference.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0)
    whole = Float64Task().collate(features)
    start = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    for number, rate in enumerate((1e-2, 5e-3, 2e-3), start=1):
        batches = [Float64Task().collate([features[index] for index in cut]) for cut in split]
        result = stepper.step(batches, num_targets=6, learning_rate=rate, seed=0, number=number)

        logits = reference(**whole.inputs).logits
        loss = functional.cross_entropy(logits, whole.labels)
        loss.backward()
        limit = float("inf") if max_grad_norm is None else max_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), limit)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        assert result.loss_sum / 6 == pytest.approx(loss.item(), rel=FLOAT64_ROUNDING)
        assert result.grad_norm == pytest.approx(norm.item(), rel=FLOAT64_ROUNDING)
        assert result.score_sum == (logits.argmax(-1) == whole.labels).sum().item()
        assert result.num_targets == 6
    moved = {name: tensor - start[name] for name, tensor in ours.state_dict().items()}
    expected = {name: tensor - start[name] for name, tensor in reference.state_dict().items()}
    for name, tensor in expected.items():
        torch.testing.assert_close(moved[name], tensor, rtol=FLOAT64_UPDATES, atol=FLOAT64_UPDATES, msg=name)
    assert all(grad_of(parameter).count_nonzero() == 0 for parameter in ours.parameters())


def test_each_group_of_the_method_learns_at_its_own_rate():
    def after_a_step(rate: float, head_scale: float) -> dict[str, torch.Tensor]:
        features, model = make_features(), make_model()
        stepper = make_stepper(model, Float64Task())
        parts: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
        for name, parameter in model.named_parameters():
            parts[name.startswith("classifier.")].append(parameter)
        groups = [ParameterGroup(parts[False]), ParameterGroup(parts[True], lr_scale=head_scale)]
        stepper.optimizer = make_optimizer(groups, TrainSection())
        stepper.step([Float64Task().collate(features)], 6, rate, seed=0, number=1)
        return model.state_dict()

    found, slow, fast = after_a_step(1e-3, 16.0), after_a_step(1e-3, 1.0), after_a_step(16 * 1e-3, 1.0)
    assert_near(
        found, {name: (fast if name.startswith("classifier.") else slow)[name] for name in found}, FLOAT64_ROUNDING
    )
    assert not any(torch.equal(fast[name], slow[name]) for name in ("classifier.weight", "bert.pooler.dense.weight"))


def test_behind_an_update_the_method_is_told_its_number_while_the_gradients_are_there():
    features, model, told = make_features(), make_model(), []
    stepper = make_stepper(model, Float64Task())
    start = model.classifier.weight.detach().clone()

    def after_update(number: int) -> None:
        assert not torch.equal(model.classifier.weight, start), "the weights have moved"
        told.append((number, grad_of(model.classifier.weight).count_nonzero().item() > 0))

    stepper.after_update = after_update
    for number in (1, 2):
        stepper.step([Float64Task().collate(features)], 6, 1e-2, seed=0, number=number)
    assert told == [(1, True), (2, True)]
    assert grad_of(model.classifier.weight).count_nonzero() == 0


def test_padding_changes_no_logit():
    task, features, model = Float64Task(), make_features(), make_model().eval()
    with torch.inference_mode():
        padded = model(**task.collate(features).inputs).logits
        alone = torch.cat([model(**task.collate([feature]).inputs).logits for feature in features])
    torch.testing.assert_close(padded, alone, rtol=FLOAT64_ROUNDING, atol=FLOAT64_ROUNDING)


def test_ignored_examples_have_no_part_in_the_gradient():
    features, task = make_features(), Float64Task()
    others = task.collate(features[3:4])
    ignored = replace(others, labels=ClassCrossEntropy().ignored(others.labels))
    found = []
    for extra in ([], [ignored]):
        model = make_model()
        stepper = make_stepper(model, task)
        stepper.step([task.collate(features[:3]), *extra], 3, 1e-2, seed=0, number=1)
        found.append(model.state_dict())
    assert_near(found[1], found[0], FLOAT64_ROUNDING)


def test_the_seed_decides_the_dropout():
    config = make_model().config
    config.hidden_dropout_prob = 0.5
    task, features = Float64Task(), make_features()

    def loss_at(seed: int) -> float:
        torch.manual_seed(0)
        model = BertForSequenceClassification(config).double().train()
        return make_stepper(model, task).step([task.collate(features)], 6, 0.0, seed, number=1).loss_sum

    assert loss_at(1) == loss_at(1) != loss_at(2)


class Broken(Float64Task):
    """The loss of the example whose row is 4 is not a number, or its gradient is infinite."""

    def __init__(self, what: str):
        self.what = what

    def loss(self, model: Any, batch: Batch) -> LossOutput:
        output = super().loss(model, batch)
        if 4 not in batch.rows:
            return output
        wrong = output.loss_sum * float("nan")
        if self.what == "gradient":
            zero = model.classifier.weight.sum() * 0
            wrong = output.loss_sum + zero.sqrt()  # the slope of a root at 0 is infinite
        return LossOutput(wrong, output.score_sum)


@pytest.mark.parametrize(
    ("what", "said"), [("loss", "the loss is nan in training rows [3, 4]"), ("gradient", "the gradient's norm is")]
)
def test_a_loss_that_is_no_number_stops_before_any_weight_changes(what: str, said: str):
    features, model, task = make_features(), make_model(), Broken(what)
    stepper = make_stepper(model, task)
    healthy = [task.collate(features[:3])]
    stepper.step(healthy, 3, 1e-2, seed=0, number=1)  # so that the optimizer has a state that could be spoilt
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moments = [value.clone() for state in stepper.optimizer.state.values() for value in state.values()]
    batches = [*healthy, task.collate(features[3:5])]
    with pytest.raises(NonFiniteLoss) as caught:
        stepper.step(batches, 5, 1e-2, seed=0, number=2)
    assert said in str(caught.value) and "no weight was changed" in str(caught.value)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    after = [value for state in stepper.optimizer.state.values() for value in state.values()]
    assert all(torch.equal(left, right) for left, right in zip(moments, after, strict=True))
    assert all(grad_of(parameter).count_nonzero() == 0 for parameter in model.parameters())
