"""A whole BERT: LoRA by hand = by peft = on the fast path, through forward, backward, training and merging."""

from __future__ import annotations

import copy
from types import ModuleType
from typing import Any

import pytest
import torch
from three_ways import (
    apart,
    assert_all_close,
    descend,
    draw,
    fill_lora,
    lora_parameters,
    needs_compiler,
    peft_name,
    peft_twin,
)
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from lorafy.engine.encoder import Encoder
from lorafy.engine.fast_path import read_network
from lorafy.engine.packed import pack_texts
from lorafy.kernels import compiled, reference
from lorafy.objectives import TEXTS
from lorafy.scratch import freeze_all_but_lora, merge_lora, replace_linear_with_lora, unmerge_lora
from lorafy.types import Features
from tolerances import FLOAT32_ROUNDING, FLOAT64_ROUNDING

NUM_LABELS = 3


class Logits(nn.Module):
    """The model's logits alone."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=ids, attention_mask=mask).logits


@pytest.fixture
def bert() -> BertForSequenceClassification:
    """float64, 2 layers, no dropout."""
    config = BertConfig(  # type: ignore[call-arg]  # the last two are read, though its signature lacks them
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=NUM_LABELS,
        attn_implementation="eager",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForSequenceClassification(config).double().eval()
    return model.requires_grad_(False)


@pytest.fixture
def pair(bert: BertForSequenceClassification) -> tuple[nn.Module, Any]:
    """LoRA on query and value, by hand and by peft, with the same A and B."""
    by_hand = copy.deepcopy(bert)
    report = replace_linear_with_lora(by_hand, rank=4, alpha=8, skip=("key", "dense", "classifier"))
    assert report.num_layers == 4
    freeze_all_but_lora(by_hand)
    fill_lora(by_hand)
    return by_hand, peft_twin(bert, by_hand)


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ids (5, 9), mask (5, 9) with rows of different lengths, labels (5,)."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 50, (5, 9), generator=generator)
    lengths = torch.randint(2, 10, (5, 1), generator=generator)
    return ids, (torch.arange(9) < lengths).long(), torch.randint(0, NUM_LABELS, (5,), generator=generator)


def test_forward_and_gradients(pair: tuple[nn.Module, Any]) -> None:
    by_hand, by_peft = pair
    ids, mask, _ = batch()
    ours, theirs = Logits(by_hand)(ids, mask), Logits(by_peft)(ids, mask)
    assert apart(theirs, ours) <= FLOAT64_ROUNDING
    incoming = draw(5, NUM_LABELS, seed=9)
    ours.backward(incoming)
    theirs.backward(incoming)
    parameters = dict(by_peft.named_parameters())
    compared = lora_parameters(by_hand)
    assert len(compared) == 8
    for (layer, matrix), parameter in compared.items():
        grad = parameters[peft_name(layer, matrix)].grad
        assert parameter.grad is not None and grad is not None
        assert parameter.grad.abs().max() > 0
        assert apart(grad, parameter.grad) <= FLOAT64_ROUNDING, (layer, matrix)


def test_what_is_trained_is_the_same(pair: tuple[nn.Module, Any]) -> None:
    ours, theirs = (sum(p.numel() for p in model.parameters() if p.requires_grad) for model in pair)
    assert ours == theirs == 4 * 4 * (32 + 32)


def test_ten_steps_of_sgd(pair: tuple[nn.Module, Any]) -> None:
    by_hand, by_peft = pair
    losses = []
    start = {key: parameter.detach().clone() for key, parameter in lora_parameters(by_hand).items()}
    for model in pair:

        def loss(step: int, model: nn.Module = model) -> torch.Tensor:
            ids, mask, labels = batch(step)
            return nn.functional.cross_entropy(Logits(model)(ids, mask), labels)

        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        losses.append(torch.tensor(descend(trained, loss), dtype=torch.float64))
    assert apart(losses[1], losses[0]) <= FLOAT64_ROUNDING
    parameters = dict(by_peft.named_parameters())
    ours = lora_parameters(by_hand)
    assert all((ours[key] - start[key]).abs().max() > 0 for key in ours)
    assert_all_close({key: parameters[peft_name(*key)] for key in ours}, ours, FLOAT64_ROUNDING)


def test_merged_models(pair: tuple[nn.Module, Any], bert: BertForSequenceClassification) -> None:
    """Weight by weight, and back to the base again."""
    by_hand, by_peft = pair
    ids, mask, _ = batch()
    before = Logits(by_hand)(ids, mask)
    merged = merge_lora(by_hand)
    theirs = by_peft.merge_and_unload().state_dict()
    assert merged.state_dict().keys() == theirs.keys() == bert.state_dict().keys()
    assert_all_close(merged.state_dict(), theirs, FLOAT64_ROUNDING)
    assert apart(Logits(merged)(ids, mask), before) <= FLOAT64_ROUNDING
    parted = unmerge_lora(merged, by_hand)
    assert_all_close(parted.state_dict(), by_hand.state_dict(), FLOAT64_ROUNDING)
    assert apart(Logits(parted)(ids, mask), before) <= FLOAT64_ROUNDING


@pytest.fixture(params=[reference, pytest.param(compiled, marks=needs_compiler)], ids=["reference", "compiled"])
def fast(pair: tuple[nn.Module, Any], request: pytest.FixtureRequest) -> FastModel:
    """The fast path over peft's twin in float32, its finest."""
    return FastModel(copy.deepcopy(pair[1]).float(), request.param)


class FastModel(nn.Module):
    def __init__(self, model: Any, operations: ModuleType):
        super().__init__()
        self.model = model
        network = read_network(model.get_base_model(), TEXTS, torch.float32)
        assert isinstance(network, Encoder)
        self.network = network
        self.operations = operations

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        rows = [row[kept].tolist() for row, kept in zip(ids, mask.bool(), strict=True)]
        features = [Features(row, [0], number) for number, row in enumerate(rows)]
        return self.network.logits(self.operations, pack_texts(features, range(len(features)), None))

    def of(self, layer: str, matrix: str) -> nn.Parameter:
        return dict(self.model.named_parameters())[peft_name(layer, matrix)]


def test_the_fast_path_forward_and_backward(pair: tuple[nn.Module, Any], fast: FastModel) -> None:
    by_hand, _ = pair
    ids, mask, _ = batch()
    ours, theirs = Logits(by_hand)(ids, mask), fast(ids, mask)
    assert apart(theirs, ours) <= FLOAT32_ROUNDING
    incoming = draw(5, NUM_LABELS, seed=9)
    ours.backward(incoming)
    theirs.backward(incoming.float())
    for key, parameter in lora_parameters(by_hand).items():
        grad = fast.of(*key).grad
        assert parameter.grad is not None and grad is not None
        assert apart(grad, parameter.grad) <= FLOAT32_ROUNDING, key


def test_ten_steps_of_sgd_on_the_fast_path(pair: tuple[nn.Module, Any], fast: FastModel) -> None:
    by_hand, _ = pair
    losses = []
    for model in (Logits(by_hand), fast):

        def loss(step: int, model: nn.Module = model) -> torch.Tensor:
            ids, mask, labels = batch(step)
            return nn.functional.cross_entropy(model(ids, mask), labels)

        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        losses.append(torch.tensor(descend(trained, loss), dtype=torch.float64))
    assert apart(losses[1], losses[0]) <= FLOAT32_ROUNDING
    ours = lora_parameters(by_hand)
    assert_all_close({key: fast.of(*key) for key in ours}, ours, FLOAT32_ROUNDING)
