"""What each method trains, on every architecture."""

from __future__ import annotations

from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lorafy.models.parameters import hold_frozen_weights
from lorafy.types import ModelError
from tiny_models import LABELS, build, load_classifier, logits_of, make_config, move_trainable

ARCHITECTURES = ["bert", "distilbert", "roberta", "gpt2"]
HEADS = {
    "bert": ["classifier"],
    "distilbert": ["pre_classifier", "classifier"],
    "roberta": ["classifier"],
    "gpt2": ["score"],
}
LINEAR_LAYERS = {"bert": 2 * 6 + 1, "distilbert": 2 * 6, "roberta": 2 * 6, "gpt2": 2 * 4}  # BERT has a pooler
QUERY_VALUE = {
    "bert": ["query", "value"],
    "distilbert": ["q_lin", "v_lin"],
    "roberta": ["query", "value"],
    "gpt2": ["c_attn"],
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_lora_starts_as_the_base(base_models: dict[str, Path], sms_csv: Path, name: str):
    config = make_config(base_models[name], sms_csv)
    built, prepared = build(config)
    base = load_classifier(config.model, LABELS, prepared.task.tokenizer.pad_token_id, config.run.seed).model
    batch = prepared.task.collate(prepared.features["train"][:8])
    assert torch.equal(logits_of(built.model, batch.inputs), logits_of(base, batch.inputs))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_linear_layer_is_found_and_only_the_head_is_trained_whole(base_models, sms_csv, name: str):
    built, _ = build(make_config(base_models[name], sms_csv, adapter={"r": 4}))
    assert sum(group.count for group in built.targets) == LINEAR_LAYERS[name]
    assert built.base.head == HEADS[name]
    trained = {n: p for n, p in built.model.named_parameters() if p.requires_grad}
    lora = {n: p for n, p in trained.items() if ".lora_A." in n or ".lora_B." in n}
    assert len(lora) == 2 * LINEAR_LAYERS[name]
    assert all(4 in parameter.shape for parameter in lora.values())
    rest = {
        n.removeprefix("base_model.model.").replace(".modules_to_save.default", "") for n in trained if n not in lora
    }
    base = load_classifier(make_config(base_models[name], sms_csv).model, LABELS, 0, 0).model
    expected = {n for n, _ in base.named_parameters() if n.split(".")[0] in HEADS[name]}
    assert rest == expected, "biases of the base stay frozen, the whole head is trained"
    assert all(p.dtype == torch.float32 for p in trained.values())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_count_is_the_one_that_peft_prints(base_models, sms_csv, name: str):
    built, _ = build(make_config(base_models[name], sms_csv, adapter={"r": 8, "target_modules": QUERY_VALUE[name]}))
    plain = AutoModelForSequenceClassification.from_pretrained(base_models[name], num_labels=2)
    base_parameters = sum(p.numel() for p in plain.parameters())
    settings = peft.LoraConfig(
        task_type="SEQ_CLS",
        r=8,
        target_modules=QUERY_VALUE[name],
        modules_to_save=HEADS[name],
        fan_in_fan_out=name == "gpt2",
    )
    trainable, _ = peft.get_peft_model(plain, settings).get_nb_trainable_parameters()
    assert built.parameters.trainable == trainable
    head = sum(p.numel() for n, p in plain.named_parameters() if "original_module" in n)
    assert built.parameters.total == base_parameters + trainable - head, "a trained head is not counted twice"


def test_head_only_trains_the_head_and_full_trains_everything(base_models, sms_csv):
    built, _ = build(make_config(base_models["distilbert"], sms_csv, adapter={"method": "none"}))
    trained = {n.split(".")[0] for n, p in built.model.named_parameters() if p.requires_grad}
    assert trained == {"pre_classifier", "classifier"}
    built, _ = build(make_config(base_models["distilbert"], sms_csv, adapter={"method": "full"}))
    assert built.parameters.share == 1.0


def test_start_values_depend_on_the_seed_alone(base_models, sms_csv):
    def tensors(seed: int) -> dict[str, torch.Tensor]:
        torch.rand(seed + 1)  # what was drawn before has no part in it
        built, _ = build(make_config(base_models["bert"], sms_csv, run={"seed": seed}))
        return {n: p.detach() for n, p in built.model.named_parameters() if p.requires_grad}

    first, again, other = tensors(1), tensors(1), tensors(2)
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert not torch.equal(
        first[next(n for n in first if "lora_A" in n)], other[next(n for n in first if "lora_A" in n)]
    )


def test_the_scale_is_alpha_over_r(base_models, sms_csv):
    built, _ = build(
        make_config(base_models["bert"], sms_csv, adapter={"r": 4, "alpha": 6, "target_modules": ["query"]})
    )
    move_trainable(built.model)
    layer = built.model.base_model.model.bert.encoder.layer[0].attention.self.query.eval()
    x = torch.randn(3, 32)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.testing.assert_close(layer(x), layer.base_layer(x) + 6 / 4 * x @ a.T @ b.T)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (["quary"], "did you mean query?"),
        (["LayerNorm"], "it is a LayerNorm"),
        (["q_proj", "v_proj"], "'v_proj' matches no linear layer"),
    ],
)
def test_targets_that_match_nothing_are_refused_with_near_misses(base_models, sms_csv, wanted, said):
    with pytest.raises(ModelError) as caught:
        build(make_config(base_models["bert"], sms_csv, adapter={"target_modules": wanted}))
    assert said in str(caught.value)
    assert len(caught.value.problems) == len(wanted)


def test_an_ending_with_a_dot_narrows_the_choice(base_models, sms_csv):
    built, _ = build(make_config(base_models["bert"], sms_csv, adapter={"target_modules": ["intermediate.dense"]}))
    assert sum(group.count for group in built.targets) == 2
    adapted = {n.split(".lora_A")[0] for n, _ in built.model.named_parameters() if ".lora_A." in n}
    assert all(name.endswith("intermediate.dense") for name in adapted) and len(adapted) == 2


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_held_in_bfloat16_only_frozen_linear_weights_change_their_type(base_models, sms_csv, name: str):
    built, _ = build(make_config(base_models[name], sms_csv))
    hold_frozen_weights(built.model, torch.bfloat16)
    for module in built.model.modules():
        for n, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad or isinstance(module, torch.nn.Embedding | torch.nn.LayerNorm):
                assert parameter.dtype == torch.float32, n
    layers = [m.get_base_layer() for m in built.model.modules() if isinstance(m, peft.tuners.lora.LoraLayer)]
    assert all(layer.weight.dtype == torch.bfloat16 for layer in layers)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_parts_of_a_model_of_one_part_are_refused(base_models, sms_csv, method: str):
    with pytest.raises(ModelError, match=r"adapter\.parts: no effect on this model"):
        build(make_config(base_models["bert"], sms_csv, adapter={"method": method, "parts": ["language"]}))
