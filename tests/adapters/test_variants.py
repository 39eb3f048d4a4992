"""LoRA in other forms: DoRA, PiSSA, OLoRA, and the settings that change which layers get it, at what rank and scale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lorafy.adapters.pissa import adapted, frozen, matrices
from lorafy.evaluation.verify import relative_difference
from lorafy.models.precision import Precision
from lorafy.plugins import load_method
from lorafy.run_directory import RunDirectory
from lorafy.types import ModelError
from lorafy.workflows.build import BuiltModel
from lorafy.workflows.evaluate import verify
from lorafy.workflows.load import load_trained
from lorafy.workflows.prepare import Prepared
from lorafy.workflows.save import write_trained
from plain_peft import by_peft
from tiny_models import LABELS, build, load_classifier, logits_of, make_config, move_trainable
from tolerances import FLOAT32_ROUNDING

ARCHITECTURES = ["bert", "distilbert", "roberta", "gpt2"]
CPU = Precision(torch.float32, torch.device("cpu"))
TURNED = "OLoRA on GPT-2's Conv1D is refused"
LAYER = "base_model.model.bert.encoder.layer.0.attention.self.query"


def built_with(base: Path, data: Path, **adapter: Any) -> tuple[BuiltModel, Prepared]:
    return build(make_config(base, data, adapter={"r": 4} | adapter))


def untouched(built: BuiltModel, prepared: Prepared) -> Any:
    config = prepared.config
    return load_classifier(config.model, LABELS, prepared.task.tokenizer.pad_token_id, config.run.seed).model


METHODS = [
    pytest.param(name, method, id=f"{method}-{name}")
    for method in ("dora", "pissa", "olora")
    for name in ARCHITECTURES
    if (name, method) != ("gpt2", "olora")  # refused, see below
]


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_it_starts_as_the_base(base_models: dict[str, Path], sms_csv: Path, name: str, method: str) -> None:
    built, prepared = built_with(base_models[name], sms_csv, method=method)
    inputs = prepared.task.collate(prepared.features["train"][:8]).inputs
    base = logits_of(untouched(built, prepared), inputs)
    assert relative_difference(logits_of(built.model, inputs), base) < FLOAT32_ROUNDING


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_plain_peft_reads_it_on_the_untouched_base(base_models, sms_csv, tmp_path, name: str, method: str) -> None:
    built, prepared = built_with(base_models[name], sms_csv, method=method)
    move_trainable(built.model)
    write_trained(RunDirectory(tmp_path), prepared, built, CPU)
    folder, inputs = tmp_path / "adapter", prepared.task.collate(prepared.features["validation"]).inputs
    expected = logits_of(built.model, inputs)
    theirs = by_peft(folder, base_models[name])
    assert relative_difference(logits_of(theirs, inputs), expected) < FLOAT32_ROUNDING
    trained = load_trained(folder)
    assert torch.equal(trained.logits(inputs, CPU), logits_of(theirs, inputs))
    base = untouched(built, prepared)
    for part in built.base.head:
        whole = theirs.base_model.model.get_submodule(part).modules_to_save["default"]
        base.get_submodule(part).load_state_dict(whole.state_dict())
    assert torch.equal(trained.base_logits(inputs, CPU), logits_of(base, inputs)), "the base's own voice"
    result = verify(load_trained(folder))
    assert result is not None and result["passed"], result


@pytest.mark.parametrize("method", ["pissa", "olora"])
@pytest.mark.parametrize("use_rslora", [False, True])
def test_twice_the_rank_is_saved_at_the_same_scale(base_models, sms_csv, tmp_path, method: str, use_rslora: bool):
    settings = {"use_rslora": use_rslora, "rank_pattern": {"query": 2}, "alpha_pattern": {"value": 8}}
    built, prepared = built_with(base_models["bert"], sms_csv, method=method, **settings)
    move_trainable(built.model)
    before = {name: tensor.clone() for name, tensor in built.model.state_dict().items()}
    inputs = prepared.task.collate(prepared.features["validation"]).inputs
    write_trained(RunDirectory(tmp_path), prepared, built, CPU)
    assert all(torch.equal(tensor, before[name]) for name, tensor in built.model.state_dict().items())
    loaded = load_trained(tmp_path / "adapter")
    assert relative_difference(loaded.logits(inputs, CPU), logits_of(built.model, inputs)) < FLOAT32_ROUNDING
    saved = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (saved["r"], saved["rank_pattern"], saved["init_lora_weights"]) == (8, {"query": 4}, True)


def test_pissa_starts_at_the_largest_singular_values(base_models, sms_csv) -> None:
    built, prepared = built_with(base_models["bert"], sms_csv, method="pissa")
    weight = untouched(built, prepared).get_submodule(LAYER.removeprefix("base_model.model.")).weight
    u, s, vh = torch.linalg.svd(weight.detach())
    layer = adapted(built.model)[LAYER]
    A, B = matrices(layer)
    best = u[:, :4] @ torch.diag(s[:4]) @ vh[:4]
    start = layer.scaling["default"] * B @ A
    # Its values lie close together, so the fast SVD may take a neighbour for the fourth.
    assert (start.norm() / best.norm()).item() > 0.99 and torch.linalg.matrix_rank(start) == 4
    torch.testing.assert_close(frozen(layer) + layer.scaling["default"] * B @ A, weight)


@pytest.mark.parametrize("method", ["pissa", "olora"])
def test_a_start_that_another_machine_rounded_otherwise_is_put_back(base_models, sms_csv, method: str) -> None:
    """Its residual base comes with it: the same outputs, whatever this machine's decomposition was."""
    built, prepared = built_with(base_models["bert"], sms_csv, method=method)
    inputs = prepared.task.collate(prepared.features["validation"]).inputs
    expected, METHOD = logits_of(built.model, inputs), load_method(method)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))[0]
    state = {name: [turn @ A * 1.01, B @ turn.T] for name, (A, B) in METHOD.state(built.model).items()}
    METHOD.load_state(built.model, state)
    with torch.no_grad():
        for name, layer in adapted(built.model).items():
            for matrix, start in zip(matrices(layer), state[name], strict=True):
                matrix.copy_(start)
    assert relative_difference(logits_of(built.model, inputs), expected) < FLOAT32_ROUNDING


def test_olora_on_a_transposed_layer_is_refused(base_models, sms_csv) -> None:
    with pytest.raises(ModelError, match=r"transformer\.h\.0\.attn\.c_attn is a Conv1D"):
        built_with(base_models["gpt2"], sms_csv, method="olora")


def test_dora_trains_a_length_for_each_output(base_models, sms_csv) -> None:
    built, _ = built_with(base_models["bert"], sms_csv, method="dora", target_modules=["query"])
    lengths = {n: p for n, p in built.model.named_parameters() if "lora_magnitude_vector" in n and p.requires_grad}
    assert [tuple(p.shape) for p in lengths.values()] == [(32,), (32,)]


def test_rslora_divides_by_the_root_of_the_rank(base_models, sms_csv) -> None:
    built, _ = built_with(base_models["bert"], sms_csv, use_rslora=True, alpha=6, rank_pattern={"value": 9})
    layer = adapted(built.model)
    assert layer[LAYER].scaling["default"] == 3
    assert layer[LAYER.replace("query", "value")].scaling["default"] == 2


def test_another_rank_and_alpha_for_some_layers(base_models, sms_csv) -> None:
    patterns = {"rank_pattern": {r"0\.attention.*query": 2, "query": 3}, "alpha_pattern": {"dense": 8}}
    built, _ = built_with(base_models["bert"], sms_csv, alpha=4, **patterns)
    found = {name.removeprefix("base_model.model.bert."): layer for name, layer in adapted(built.model).items()}
    ranks = {name: layer.r["default"] for name, layer in found.items()}
    assert ranks["encoder.layer.0.attention.self.query"] == 2 and ranks["encoder.layer.1.attention.self.query"] == 3
    assert ranks["encoder.layer.0.attention.self.key"] == 4
    scales = {name: layer.scaling["default"] for name, layer in found.items()}
    assert scales["pooler.dense"] == 2 and scales["encoder.layer.0.attention.self.key"] == 1


def test_layers_that_are_left_out(base_models, sms_csv) -> None:
    def names(**adapter: Any) -> set[str]:
        built, _ = built_with(base_models["bert"], sms_csv, **adapter)
        assert sum(group.count for group in built.targets) == len(adapted(built.model))
        return {name.removeprefix("base_model.model.bert.") for name in adapted(built.model)}

    every = names()
    assert names(exclude_modules=["pooler.dense", "query"]) == {
        name for name in every if name != "pooler.dense" and not name.endswith("query")
    }
    first = {name for name in every if name.startswith("encoder.layer.0.")}
    assert names(layers_to_transform=0) == names(layers_to_transform=[0]) == first
    assert names(layers_to_transform=[0, 1], exclude_modules=["dense"]) == {n for n in every if "dense" not in n}


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ({"exclude_modules": ["qurey"]}, "'qurey' matches no layer that would get LoRA"),
        ({"exclude_modules": ["query"], "target_modules": ["key"]}, "'query' matches no layer that would get LoRA"),
        ({"exclude_modules": ["query"], "target_modules": ["query"]}, "no layer is left for LoRA"),
        ({"layers_to_transform": [1, 2]}, "this model has no layer 2\n    -> its layers with linear ones are 0 to 1"),
        ({"rank_pattern": {"qurey": 2}}, "'qurey' matches no layer that gets LoRA\n    -> did you mean query or key?"),
        ({"rank_pattern": {"query": 2, "0.*query": 3}}, "'0.*query' has no effect: entries before it decide"),
        ({"alpha_pattern": {"(query": 2}}, "'(query' is no regular expression"),
        ({"r": 33}, "rank 33 is above the size of 13 layers"),
        ({"rank_pattern": {"query": 64}}, "rank 64 is above the size of 2 layers"),
        ({"modules_to_save": ["classifier"]}, "'classifier' is trained anyway: it is of the head"),
        ({"modules_to_save": ["LayerNrom"]}, "'LayerNrom' matches no module\n    -> did you mean LayerNorm"),
        ({"modules_to_save": ["dropout"]}, "'dropout' has nothing that could be trained"),
        ({"modules_to_save": ["encoder.layer"]}, "'encoder.layer' is a list of modules"),
        ({"modules_to_save": ["pooler"], "target_modules": ["dense"]}, "holds layers of adapter.target_modules"),
        ({"trainable_token_indices": [5, 10_000]}, "there is no token 10000"),
        (
            {"trainable_token_indices": [5], "modules_to_save": ["word_embeddings"]},
            "adapter.modules_to_save trains bert.embeddings.word_embeddings whole",
        ),
    ],
)
def test_what_has_no_effect_or_cannot_be_is_refused(base_models, sms_csv, adapter: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError) as caught:
        built_with(base_models["bert"], sms_csv, **adapter)
    assert said in str(caught.value), str(caught.value)


@pytest.mark.parametrize("method", ["lora", "dora", "pissa"])
def test_modules_and_rows_that_are_trained_beside_lora(base_models, sms_csv, tmp_path: Path, method: str) -> None:
    beside = {"modules_to_save": ["pooler", "LayerNorm"], "trainable_token_indices": [7, 2]}
    built, prepared = built_with(base_models["bert"], sms_csv, method=method, **beside)
    assert not any("pooler" in name for name in adapted(built.model)), "it is trained whole, without LoRA"
    names = [name for name, p in built.model.named_parameters() if p.requires_grad and "lora_" not in name]
    assert sum("LayerNorm.modules_to_save" in name for name in names) == 2 * (1 + 2 * 2)
    rows = built.model.get_parameter(next(name for name in names if "trainable_tokens" in name))
    assert rows.shape == (2, 32)
    move_trainable(built.model)
    write_trained(RunDirectory(tmp_path), prepared, built, CPU)
    folder, inputs = tmp_path / "adapter", prepared.task.collate(prepared.features["validation"]).inputs
    theirs = by_peft(folder, base_models["bert"])
    trained = load_trained(folder)
    assert torch.equal(trained.logits(inputs, CPU), logits_of(theirs, inputs))
    base = untouched(built, prepared)
    head = theirs.base_model.model.classifier.modules_to_save["default"]
    base.classifier.load_state_dict(head.state_dict())
    assert torch.equal(trained.base_logits(inputs, CPU), logits_of(base, inputs))
    result = verify(load_trained(folder))
    assert result is not None and result["passed"], result
