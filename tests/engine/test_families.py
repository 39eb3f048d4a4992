"""The fast path computes what the model computes: loss and gradients of every trained parameter, on full tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from both_paths import Both, build_both, joined, largest_difference, loss_and_gradients
from families import CLASSIFIERS, FAMILIES, LANGUAGE_MODELS
from transformers import AutoConfig, AutoModelForCausalLM

from lorafy.engine.fast_path import read_network
from lorafy.engine.weights import Unsupported
from lorafy.objectives import TOKENS
from lorafy.plugins import plugin_names
from lorafy.training.paths import StepPath
from lorafy.types import IGNORE_INDEX, Features
from tolerances import BFLOAT16_STORED, BFLOAT16_TIMES_TORCH, FLOAT32_ROUNDING
from vision_models import VISION_MODELS

pytestmark = pytest.mark.usefixtures("compiler")
every_family = pytest.mark.parametrize("family", FAMILIES)


def test_every_family_is_here() -> None:
    """Those that see are in test_seeing.py."""
    assert sorted([*FAMILIES, *VISION_MODELS]) == plugin_names("engine/families")


Built = Callable[[str], Both]


@pytest.fixture(scope="module")
def of_family(family_bases: dict[str, Path], ragged: dict[str, Path]) -> Built:
    """LoRA on every layer, nothing dropped; built once."""
    return cache(lambda family: build_both(family_bases[family], ragged[family], {"r": 5}))


# ---- without dropout: the model's own forward is the oracle

SOME_LAYERS = [
    ("bert", ["query", "value"]),
    ("bert", ["encoder.layer.0.attention.self.value"]),
    ("bert", ["encoder.layer.1.attention.self.query"]),
    ("bert", ["pooler.dense"]),
    ("distilbert", ["transformer.layer.1.attention.k_lin"]),
    ("gpt2", ["c_attn"]),
    ("opt", ["q_proj", "v_proj"]),
    ("llama", ["layers.0.self_attn.v_proj"]),
    ("qwen3", ["layers.1.self_attn.k_proj", "layers.0.mlp.up_proj"]),
]


@every_family
def test_loss_and_gradients_are_the_model_s(of_family: Built, family: str) -> None:
    both = of_family(family)
    assert len({len(feature) for feature in both.features}) > 8, "lengths differ"
    plain, fast = (loss_and_gradients(path, both.model, both.features) for path in (both.plain, both.fast))
    assert largest_difference(fast, plain) < FLOAT32_ROUNDING


@pytest.mark.parametrize("family, targets", SOME_LAYERS, ids=str)
def test_some_layers_are_adapted(
    family_bases: dict[str, Path], ragged: dict[str, Path], family: str, targets: list[str]
) -> None:
    both = build_both(family_bases[family], ragged[family], {"r": 5, "target_modules": targets})
    plain, fast = (loss_and_gradients(path, both.model, both.features) for path in (both.plain, both.fast))
    assert largest_difference(fast, plain) < FLOAT32_ROUNDING


def test_pairs_of_texts(family_bases: dict[str, Path], tmp_path: Path, sms_rows: list[tuple[str, str]]) -> None:
    lines = [
        f'{label},"{" ".join(text.split()[: 1 + index % 5])}","{text}"\n'
        for index, (label, text) in enumerate(sms_rows)
    ]
    (tmp_path / "pairs.csv").write_text("label,first,second\n" + "".join(lines), encoding="utf-8")
    both = build_both(family_bases["bert"], tmp_path / "pairs.csv", {"r": 5}, text="first", text_pair="second")
    assert all(set(feature.token_type_ids or []) == {0, 1} for feature in both.features)
    plain, fast = (loss_and_gradients(path, both.model, both.features) for path in (both.plain, both.fast))
    assert largest_difference(fast, plain) < FLOAT32_ROUNDING


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_the_head_alone_is_trained(family_bases: dict[str, Path], ragged: dict[str, Path], family: str) -> None:
    both = build_both(family_bases[family], ragged[family], {"method": "none"})
    plain, fast = (loss_and_gradients(path, both.model, both.features) for path in (both.plain, both.fast))
    assert largest_difference(fast, plain) < FLOAT32_ROUNDING


def test_a_sequence_without_a_target_adds_nothing(of_family: Built) -> None:
    both = of_family("llama")
    ids = both.features[0].input_ids
    without = [Features(ids[:length], [IGNORE_INDEX] * length, 999) for length in (1, 20)]
    more = [both.features[0], *without, *both.features[1:]]
    expected, found = (loss_and_gradients(both.fast, both.model, some) for some in (both.features, more))
    assert largest_difference(found, expected) < FLOAT32_ROUNDING


@every_family
def test_in_bfloat16_it_is_as_exact_as_the_model(
    of_family: Built, family_bases: dict[str, Path], ragged: dict[str, Path], family: str
) -> None:
    """House rule: at most twice the error of plain torch, over all gradients together."""
    exact = of_family(family)
    both = build_both(family_bases[family], ragged[family], {"r": 5}, torch.bfloat16)
    expected = joined(loss_and_gradients(exact.plain, exact.model, exact.features))
    plain, fast = (
        (joined(loss_and_gradients(path, both.model, both.features)) - expected).norm() / expected.norm()
        for path in (both.plain, both.fast)
    )
    assert fast < max(BFLOAT16_TIMES_TORCH * plain, BFLOAT16_STORED)


@every_family
def test_the_targets_that_it_counts_as_right(of_family: Built, family: str) -> None:
    both = of_family(family)
    counts = [
        sum(int(path.loss(batch).score_sum) for batch in path.batches(both.features, range(len(both.features)), None))
        for path in (both.plain, both.fast)
    ]
    assert counts[0] == counts[1]


SLIDING = {"use_sliding_window": True, "sliding_window": 8, "layer_types": ["full_attention", "sliding_attention"]}


@pytest.mark.parametrize(
    ("family", "window"), [("mistral", {"sliding_window": 8}), ("qwen2", SLIDING), ("qwen3", SLIDING)]
)
def test_a_sliding_window_is_refused(family_bases: dict[str, Path], family: str, window: dict[str, Any]) -> None:
    config = AutoConfig.from_pretrained(family_bases[family], **window)
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(Unsupported, match="sliding window"):
        read_network(model, TOKENS, torch.float32)


# ---- with dropout: the reference operations are the oracle, the masks are the same


@pytest.fixture(scope="module")
def dropping_family(dropping_bases: dict[str, Path], ragged: dict[str, Path]) -> Built:
    return cache(lambda family: build_both(dropping_bases[family], ragged[family], {"r": 5, "dropout": 0.3}))


@pytest.fixture
def dropping(dropping_family: Built, family: str) -> Iterator[Both]:
    """Everything that can drop does. A test may change its mode and its dropouts."""
    both = dropping_family(family)
    both.model.train()
    places = [(module, attribute, getattr(module, attribute)) for _, module, attribute in dropouts(both.model)]
    yield both
    for module, attribute, p in places:
        setattr(module, attribute, p)


@every_family
def test_with_dropout_it_equals_the_reference_operations(dropping: Both) -> None:
    fast, plain = (
        loss_and_gradients(path, dropping.model, dropping.features, seed=2**40 + 7)
        for path in (dropping.fast, dropping.by_reference())
    )
    assert largest_difference(fast, plain) < FLOAT32_ROUNDING


@every_family
def test_how_a_step_is_cut_changes_nothing(dropping: Both) -> None:
    whole = loss_and_gradients(dropping.fast, dropping.model, dropping.features, seed=11)
    for most in (1, 5):
        cut = replace(dropping.fast, max_examples=most)
        assert len(cut.batches(dropping.features, range(len(dropping.features)), 11)) == -(
            -len(dropping.features) // most
        )
        found = loss_and_gradients(cut, dropping.model, dropping.features, seed=11)
        assert largest_difference(found, whole) < FLOAT32_ROUNDING


one_of_each = pytest.mark.parametrize("family", [CLASSIFIERS[0], LANGUAGE_MODELS[0]])


@one_of_each
def test_the_seed_alone_decides_what_is_dropped(dropping: Both) -> None:
    state = torch.get_rng_state()
    first, again, other = (
        loss_and_gradients(dropping.fast, dropping.model, dropping.features, seed) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state), "torch's random state plays no part"
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert largest_difference(other, first) > 0.01


@one_of_each
def test_without_a_seed_nothing_is_dropped(dropping: Both) -> None:
    """Whatever mode the model is in: the fast path asks the batch."""
    fast = loss_and_gradients(dropping.fast, dropping.model, dropping.features)
    dropping.model.eval()
    plain = loss_and_gradients(dropping.plain, dropping.model, dropping.features)
    assert largest_difference(fast, plain) < FLOAT32_ROUNDING


def dropouts(model: Any) -> Iterator[tuple[str, Any, str]]:
    """Name, module and attribute of every p of the model: a Dropout's own, or a number that the module hands on."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout):
            yield name, module, "p"
        for attribute in ("dropout", "attention_dropout"):
            if isinstance(getattr(module, attribute, None), float):
                yield f"{name}.{attribute}", module, attribute


@every_family
def test_each_dropout_of_the_model_is_one_of_the_fast_path(dropping: Both) -> None:
    """With p = 0 everywhere else it changes the fast path's loss if it changes the model's."""
    model, features = dropping.model, dropping.features[:6]
    places = [(*place, getattr(*place[1:])) for place in dropouts(model)]
    assert {p for *_, p in places} >= {0.2, 0.3}
    for _, module, attribute, _ in places:
        setattr(module, attribute, 0.0)

    def losses() -> tuple[float, float]:
        network = read_network(model.get_base_model(), dropping.plain.task.objective.reads, torch.float32)
        found = []
        for path in (dropping.plain, replace(dropping.fast, network=network)):
            torch.manual_seed(0)
            found.append(sum(path.loss(batch).loss_sum.item() for batch in path.batches(features, range(6), 3)))
        return found[0], found[1]

    with torch.no_grad(), torch.random.fork_rng():
        whole = losses()
        for name, module, attribute, p in places:
            setattr(module, attribute, p)
            plain, fast = (one != other for one, other in zip(losses(), whole, strict=True))
            assert plain == fast, f"{name}: the model {plain}, the fast path {fast}"
            setattr(module, attribute, 0.0)


@one_of_each
def test_in_the_mean_over_seeds_it_is_the_model_s_dropout(dropping: Both) -> None:
    """Both draw the loss from the same distribution: the means of 50 draws agree within four standard errors."""
    draws = torch.zeros(2, 50, dtype=torch.float64)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        for seed in range(50):
            paths: tuple[StepPath, ...] = (dropping.plain, dropping.fast)
            for row, path in enumerate(paths):
                batches = path.batches(dropping.features[:4], range(4), seed)
                draws[row, seed] = sum(path.loss(batch).loss_sum.item() for batch in batches)
    deviations = draws.std(1)
    assert (draws[0].mean() - draws[1].mean()).abs() < 4 * deviations.norm() / 50**0.5
    assert 1 / 1.5 < deviations[0] / deviations[1] < 1.5, "0.14 is the ratio's own deviation"
