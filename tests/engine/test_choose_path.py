"""The fast path is taken where it can be built and agrees with the plain one; else the plain one, and why is said."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lorafy.engine import fast_path
from lorafy.engine.fast_path import FastPath
from lorafy.kernels import compiled
from lorafy.kernels.build import load_library
from lorafy.models.parameters import hold_frozen_weights
from lorafy.models.precision import Precision
from lorafy.objectives.tokens import TokenCrossEntropy
from lorafy.training.paths import CHECK_EXAMPLES, LARGEST_DIFFERENCE, Choice, PlainPath, check_examples, choose_path
from lorafy.types import Features
from tiny_models import build, logits_of, make_config

pytestmark = pytest.mark.usefixtures("compiler")

CPU = torch.device("cpu")


def choose(
    model: Any,
    task: Any,
    features: list[Features],
    *,
    precision: Precision | None = None,
    fast_wanted: bool = True,
    num_processes: int = 1,
) -> Choice:
    plain = PlainPath(model, task, precision or Precision(torch.float32, CPU), None)
    choice = choose_path(plain, model, fast_wanted=fast_wanted, num_processes=num_processes, features=features)
    assert (choice.path is plain) != choice.is_fast
    return choice


def classifier(base: Path | str, data: Path, **adapter: Any) -> tuple[Any, Any, list[Features]]:
    built, prepared = build(make_config(base, data, adapter=adapter))
    return built.model, prepared.task, prepared.features["train"]


@pytest.fixture
def bert(tiny_bert: Path, sms_csv: Path) -> tuple[Any, Any, list[Features]]:
    return classifier(tiny_bert, sms_csv, dropout=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fast_path_is_taken(sms_csv: Path, dtype: torch.dtype) -> None:
    """MiniLM, not random weights: through those all texts look alike, so gradients cancel, and rounding is left."""
    model, task, features = classifier("minilm", sms_csv, dropout=0.1)
    hold_frozen_weights(model, dtype)
    for label in (0, 1, None):
        first = [feature for feature in features if label in (None, feature.labels[0])]
        choice = choose(model, task, first, precision=Precision(dtype, CPU))
        assert choice.is_fast, choice.message
        assert choice.message.startswith("fast path, held against the plain")
        assert len(figures(choice)) == 3


def test_the_reference_is_wanted(bert) -> None:
    choice = choose(*bert, fast_wanted=False)
    assert not choice.is_fast and choice.message == "plain path (train.kernels=reference)"


def refused(choice: Choice) -> str:
    """What is said where the model's own forward is used, its LoRA layers fused or not."""
    assert not isinstance(choice.path, FastPath)
    assert choice.message.startswith("plain path")
    return choice.message


def test_several_processes(bert) -> None:
    assert "several processes" in refused(choose(*bert, num_processes=2))


@pytest.mark.parametrize("kind, reason", [("cuda", "float32"), ("mps", "mps")])
def test_another_device(bert, kind: str, reason: str) -> None:
    """Nothing is run on it."""
    precision = Precision(torch.float32, torch.device(kind))
    assert reason in refused(choose(*bert, precision=precision))


def test_float16(bert) -> None:
    assert "float16" in refused(choose(*bert, precision=Precision(torch.float16, CPU)))


def test_a_classifier_that_it_does_not_know(neox: Path, sms_csv: Path) -> None:
    reason = refused(choose(*classifier(neox, sms_csv)))
    assert "gpt_neox" in reason and "distilbert" in reason, "what is not known, and what is"


def test_a_known_language_model_that_classifies(base_models: dict[str, Path], sms_csv: Path) -> None:
    assert "gpt2" in refused(choose(*classifier(base_models["gpt2"], sms_csv)))


def test_full_fine_tuning(tiny_bert: Path, sms_csv: Path) -> None:
    choice = choose(*classifier(tiny_bert, sms_csv, method="full"))
    assert "trained" in refused(choice) and not choice.is_fast


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("part", ["LayerNorm.weight", "word_embeddings.weight", "intermediate.dense.bias"])
def test_what_else_is_trained_gets_its_gradient(bert, part: str, dtype: torch.dtype) -> None:
    """The fast path holds it frozen: another one is taken."""
    model, task, features = bert
    parameters = [p for name, p in model.named_parameters() if name.replace(".base_layer", "").endswith(part)]
    assert parameters
    for parameter in parameters:
        parameter.requires_grad_(True)
    hold_frozen_weights(model, dtype)
    choice = choose(model, task, features, precision=Precision(dtype, CPU))
    assert not isinstance(choice.path, FastPath)
    for batch in choice.path.batches(features[:4], range(4), None):
        choice.path.loss(batch).loss_sum.backward()
    assert all(parameter.grad is not None for parameter in parameters), choice.message


@pytest.fixture
def without_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        load_library.cache_clear()
        yield
    load_library.cache_clear()


def test_no_compiler(bert, without_compiler: None) -> None:
    assert "apt install g++" in refused(choose(*bert))


# ---- a fast path that is wrong


def wrong_operations(**instead: Any) -> Any:
    names = [name for name in vars(compiled) if not name.startswith("_")]
    return SimpleNamespace(**{name: getattr(compiled, name) for name in names} | instead)


def activation(x: torch.Tensor, *settings: Any) -> torch.Tensor:
    return 1.01 * compiled.activation(x, *settings)


def attention(*arguments: Any) -> torch.Tensor:
    return 1.01 * compiled.attention(*arguments)


def lora_linear(x: torch.Tensor, linear: Any, seeds: Any) -> torch.Tensor:
    parts = [replace(part, scaling=1.02 * part.scaling) for part in linear.parts]
    return compiled.lora_linear(x, replace(linear, parts=parts), seeds)


def add_norm(residual: torch.Tensor, y: Any, norm: Any, *settings: Any, **more: Any) -> Any:
    return compiled.add_norm(residual, y, replace(norm, epsilon=norm.epsilon + 1e-2), *settings, **more)


def not_finite(x: torch.Tensor, *settings: Any) -> torch.Tensor:
    return torch.nan * compiled.activation(x, *settings)


class ForgottenGradient(torch.autograd.Function):
    """The right output, and half of its gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, d_out: torch.Tensor) -> torch.Tensor:
        return d_out / 2


def half_a_gradient(x: torch.Tensor, *settings: Any) -> torch.Tensor:
    return ForgottenGradient.apply(compiled.activation(x, *settings))


WRONG = {
    "activation": {"activation": activation},
    "attention": {"attention": attention},
    "adapter": {"lora_linear": lora_linear},
    "norm": {"add_norm": add_norm},
    "not finite": {"activation": not_finite},
    "gradient alone": {"activation": half_a_gradient},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_operation_is_noticed(bert, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]) -> None:
    model, task, features = bert
    right = choose(model, task, features)
    assert right.is_fast, right.message
    monkeypatch.setattr(fast_path, "compiled", wrong_operations(**wrong))
    choice = choose(model, task, features)
    assert not choice.is_fast
    assert choice.message.startswith("plain path") and "differs on the first examples" in choice.message
    (plain_loss, *_), (expected_loss, _, apart) = figures(right), figures(choice)
    assert expected_loss == plain_loss, "the right figure is the first"
    assert not apart < LARGEST_DIFFERENCE[torch.float32]


def figures(choice: Choice) -> list[float]:
    """Both losses, and how far the gradients are apart."""
    found = re.search(r"loss (\S+) and (\S+), gradients (\S+) apart", choice.message)
    assert found, choice.message
    return [float(figure) for figure in found.groups()]


def test_only_the_first_examples_are_looked_at(bert) -> None:
    model, task, features = bert
    seen: list[int] = []

    class Counting(type(task)):  # type: ignore[misc]
        def collate(self, some: Any) -> Any:
            seen.extend(feature.row for feature in some)
            return super().collate(some)

    counting = Counting(task.tokenizer, task.label_names, task.max_length)
    assert choose(model, counting, features).is_fast
    of_its_class = [feature.row for feature in features if feature.labels == features[0].labels]
    assert sorted(seen) == sorted(of_its_class[:CHECK_EXAMPLES])


def test_a_model_that_tells_no_texts_apart_is_not_refused(tiny_bert: Path, sms_csv: Path) -> None:
    """Random weights in bfloat16: gradients of two classes nearly cancel (0.3 apart), those of one do not."""
    model, task, features = classifier(tiny_bert, sms_csv, dropout=0.1)
    hold_frozen_weights(model, torch.bfloat16)
    for start in range(0, 24, 8):
        choice = choose(model, task, features[start:], precision=Precision(torch.bfloat16, CPU))
        assert choice.is_fast, choice.message


def test_all_sequences_are_of_one_kind() -> None:
    sequences = [Features([1, 2, 3], [-100, 2, number], number) for number in range(12)]
    task: Any = SimpleNamespace(objective=TokenCrossEntropy())
    assert check_examples(sequences, task) == sequences[:CHECK_EXAMPLES]


# ---- the check leaves no trace


def modes(model: Any) -> dict[str, bool]:
    return {name: module.training for name, module in model.named_modules()}


@pytest.mark.parametrize("wrong", [None, activation], ids=["right", "wrong"])
@pytest.mark.parametrize("training", [True, False])
def test_the_check_changes_nothing(bert, monkeypatch: pytest.MonkeyPatch, training: bool, wrong: Any) -> None:
    model, task, features = bert
    model.train(training)
    if wrong:
        monkeypatch.setattr(fast_path, "compiled", wrong_operations(activation=wrong))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    before, state = modes(model), torch.get_rng_state()
    choice = choose(model, task, features)
    assert choice.is_fast == (wrong is None)
    assert torch.equal(torch.get_rng_state(), state)
    assert modes(model) == before
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trained
    assert all(parameter.grad is None for parameter in model.parameters())
    after = model.state_dict()
    assert list(after) == list(weights)
    assert all(torch.equal(after[name], weights[name]) for name in weights)


def test_gradients_that_are_there_stay(bert) -> None:
    """The optimizer holds them as views of one tensor."""
    model, *_ = bert
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    grads = [torch.full_like(parameter, index) for index, parameter in enumerate(trained)]
    for parameter, grad in zip(trained, grads, strict=True):
        parameter.grad = grad
    clean = choose(*bert)
    assert clean.is_fast and figures(clean)[2] < LARGEST_DIFFERENCE[torch.float32]
    for index, (parameter, grad) in enumerate(zip(trained, grads, strict=True)):
        assert parameter.grad is grad and (grad == index).all()


def test_an_error_in_the_check_leaves_the_weights(bert, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> torch.Tensor:
        raise MemoryError

    model, task, features = bert
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    monkeypatch.setattr(fast_path, "compiled", wrong_operations(attention=broken))
    with pytest.raises(MemoryError):
        choose(model, task, features)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_the_model_itself_still_computes_the_same(bert) -> None:
    """Its frozen weights become views of what the fast path holds."""
    model, task, features = bert
    inputs = task.collate(features).inputs
    before = logits_of(model, inputs)
    assert choose(model, task, features).is_fast
    assert torch.equal(logits_of(model, inputs), before)
