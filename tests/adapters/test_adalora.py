"""AdaLoRA: its schedule, its term of the loss, its budget, and what lies on disk, against peft and the paper."""

from __future__ import annotations

import itertools
import shutil
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from accelerate import Accelerator
from peft.tuners.adalora import AdaLoraLayer, RankAllocator, SVDLinear
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from lorafy.adapter_contract import Attachment
from lorafy.adapters.adalora import METHOD, make_schedule, orthogonality
from lorafy.config.schema import AdapterSection, TrainSection
from lorafy.engine.fast_path import build_fast_path, build_fused_layers
from lorafy.engine.weights import Unsupported
from lorafy.models.precision import Precision
from lorafy.plugins import foreign_method
from lorafy.run_directory import RunDirectory
from lorafy.training.optim import make_optimizer
from lorafy.training.paths import PlainPath
from lorafy.training.step import Stepper
from lorafy.types import ConfigError
from lorafy.workflows.load import load_trained
from lorafy.workflows.save import write_trained
from plain_peft import by_peft
from tiny_models import LABELS, build, load_classifier, logits_of, make_config, move_trainable
from tolerances import FLOAT32_ROUNDING

ARCHITECTURES = ["bert", "distilbert", "roberta", "gpt2"]
LINEAR_LAYERS = {"bert": 2 * 6 + 1, "distilbert": 2 * 6, "roberta": 2 * 6, "gpt2": 2 * 4}
CPU = Precision(torch.float32, torch.device("cpu"))


def adalora(**settings: Any) -> dict[str, Any]:
    return {"method": "adalora", **settings}


def layers_of(model: Any) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, AdaLoraLayer)]


def layers_by_name(model: Any) -> dict[str, Any]:
    found = {name: module for name, module in model.named_modules() if isinstance(module, AdaLoraLayer)}
    return {name.removeprefix("base_model.model."): layer for name, layer in found.items()}


def total(ranks: dict[str, int] | None) -> int:
    assert ranks is not None
    return sum(ranks.values())


def stepper_of(model: Any, task: Any, **settings: Any) -> Stepper:
    optimizer = make_optimizer(METHOD.parameter_groups(model, AdapterSection(**adalora())), TrainSection(**settings))
    return Stepper(
        model=model,
        path=PlainPath(model, task, CPU, None),
        optimizer=optimizer,
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        accelerator=Accelerator(),
        precision=CPU,
        max_grad_norm=None,
        after_update=lambda number: METHOD.after_update(model, number),
        regularise=lambda: METHOD.regularise(model),
    )


# What is attached


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_layer_is_pefts_own_and_starts_as_the_base(base_models: dict[str, Path], sms_csv: Path, name: str):
    built, prepared = build(make_config(base_models[name], sms_csv, adapter=adalora(r=4)))
    layers = layers_of(built.model)
    assert len(layers) == LINEAR_LAYERS[name] and {type(layer) for layer in layers} == {SVDLinear}
    trained = {n: p for n, p in built.model.named_parameters() if p.requires_grad}
    assert all(p.dtype == torch.float32 for p in trained.values())
    assert sum(".lora_E." in n for n in trained) == len(layers)
    assert all(6 in p.shape for n, p in trained.items() if ".lora_" in n), "1.5 times r"
    section, task = prepared.config.model, prepared.task
    base = load_classifier(section, LABELS, task.tokenizer.pad_token_id, prepared.config.run.seed).model
    inputs = task.collate(prepared.features["train"][:8]).inputs
    assert torch.equal(logits_of(built.model, inputs), logits_of(base, inputs))


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_the_fast_path_refuses_it_in_words(base_models: dict[str, Path], sms_csv: Path, name: str):
    built, prepared = build(make_config(base_models[name], sms_csv, adapter=adalora(r=4)))
    cpu = torch.device("cpu")
    with pytest.raises(Unsupported, match="it is not written for AdaLoRA's layers, B E A"):
        build_fast_path(built.model, prepared.task.objective, torch.float32, cpu, None)
    with pytest.raises(Unsupported, match="there are no LoRA layers"):
        build_fused_layers(built.model, torch.float32, cpu)


@pytest.mark.parametrize("num_steps", [2, 3, 4, 7, 8, 20, 150, 6_700, 86_000])
def test_the_default_schedule_fits_any_number_of_steps(num_steps: int):
    schedule = make_schedule(AdapterSection(**adalora()), num_steps)
    assert 0 <= schedule.tinit < schedule.met_at <= num_steps and schedule.met_at >= 2 and schedule.deltaT >= 1
    peft.AdaLoraConfig(**asdict(schedule))  # its own checks
    if num_steps >= 8:
        assert schedule.tinit == num_steps // 8 and schedule.tfinal == num_steps // 2


@pytest.mark.parametrize(
    ("adapter", "steps", "said"),
    [
        ({}, 1, "AdaLoRA needs two steps"),
        ({"tinit": 5}, 10, "tinit 5 and tfinal 5 leave none of the 10 steps"),
        ({"tinit": 0, "tfinal": 9}, 10, "tinit 0 and tfinal 9 leave none of the 10 steps"),
        ({"tinit": 2, "tfinal": 4, "deltaT": 5}, 10, "5 is more than the 4 steps in which ranks are taken away"),
        ({"r": 22}, 10, "at rank 33, but attention.self.query has 32 rows or columns\n    -> adapter.r=21 at most"),
    ],
)
def test_what_does_not_fit_is_refused(tiny_bert: Path, sms_csv: Path, adapter: dict[str, Any], steps: int, said: str):
    with pytest.raises(ConfigError) as caught:
        build(make_config(tiny_bert, sms_csv, adapter=adalora(**adapter), train={"max_steps": steps}))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "adapter",
    [{"method": "lora", "tinit": 3}, {"method": "full", "deltaT": 3}, adalora(use_rslora=True), adalora(lr_ratio=4)],
)
def test_a_setting_without_effect_is_refused(tiny_bert: Path, sms_csv: Path, adapter: dict[str, Any]):
    with pytest.raises(ConfigError, match=f"no effect with method: {adapter['method']}"):
        make_config(tiny_bert, sms_csv, adapter=adapter)


def test_what_the_recipe_says_is_kept_in_the_runs_recipe(tiny_bert: Path, sms_csv: Path):
    config = make_config(tiny_bert, sms_csv, adapter=adalora(tinit=0, trainable_token_indices=None)).adapter
    assert AdapterSection(**config.effective) == config
    assert config.effective["tinit"] == 0 and "tfinal" not in config.effective
    assert "tinit" not in AdapterSection().effective


# Its term of the loss


def written_out(model: Any, weight: float) -> torch.Tensor:
    """The authors' compute_orth_regu, from the parameters' names."""
    norms = []
    for name, p in model.named_parameters():
        if ".lora_A." in name:
            norms.append(((p @ p.T - torch.eye(len(p), dtype=p.dtype)) ** 2).sum().sqrt())
        elif ".lora_B." in name:
            norms.append(((p.T @ p - torch.eye(p.shape[1], dtype=p.dtype)) ** 2).sum().sqrt())
    return weight * sum(norms) / len(norms)


def test_the_term_is_the_one_that_peft_adds_to_a_models_own_loss(tiny_bert: Path, sms_csv: Path):
    built, prepared = build(make_config(tiny_bert, sms_csv, adapter=adalora(r=4)))
    move_trainable(built.model)
    batch = prepared.task.collate(prepared.features["train"][:8])
    outputs = built.model.eval()(**batch.inputs, labels=batch.labels)
    alone = functional.cross_entropy(outputs.logits, batch.labels)
    term = orthogonality(built.model)
    torch.testing.assert_close(outputs.loss - alone, term, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)
    torch.testing.assert_close(term, written_out(built.model, 0.5), rtol=FLOAT32_ROUNDING, atol=0.0)
    assert term > 0.5


CUTS = [[[0, 1, 2, 3, 4, 5]], [[0], [1], [2], [3], [4], [5]], [[5, 0], [3, 1, 2, 4]]]


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_however_a_step_is_cut_its_gradient_is_that_of_mean_loss_plus_term(
    tiny_bert: Path, sms_csv: Path, cut: list[list[int]]
):
    config = make_config(tiny_bert, sms_csv, adapter=adalora(r=4))
    (built, prepared), (reference, _) = build(config), build(config)
    task, features = prepared.task, prepared.features["train"][:6]
    for model in (built.model, reference.model):
        move_trainable(model)
        model.double().eval()
    seen = {}
    stepper = stepper_of(built.model, task)
    stepper.optimizer.register_step_pre_hook(
        lambda *_: seen.update({n: p.grad.clone() for n, p in built.model.named_parameters() if p.requires_grad})
    )
    batches = [task.collate([features[index] for index in of]) for of in cut]
    result = stepper.step(batches, num_targets=6, learning_rate=0.0, seed=0, number=1)

    whole = task.collate(features)
    loss = functional.cross_entropy(reference.model(**whole.inputs).logits.float(), whole.labels)
    term = written_out(reference.model, 0.5)
    (loss.double() + term).backward()
    assert result.loss_sum / 6 == pytest.approx(loss.item(), rel=FLOAT32_ROUNDING), "the loss is reported without it"
    assert result.regularisation == pytest.approx(term.item(), rel=FLOAT32_ROUNDING)
    expected = {n: p.grad for n, p in reference.model.named_parameters() if p.requires_grad}
    assert set(seen) == set(expected)
    largest = max(grad.abs().max().item() for grad in expected.values() if grad is not None)
    for name, grad in expected.items():
        assert grad is not None
        torch.testing.assert_close(seen[name], grad, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING * largest, msg=name)
    of_term = torch.autograd.grad(written_out(reference.model, 0.5), layers_of(reference.model)[0].lora_A["default"])[0]
    assert of_term.abs().max() > 1e-3 * largest, "it is not lost in the rounding"


# Its budget


def test_a_step_without_a_gradient_spoils_no_average(tiny_bert: Path, sms_csv: Path):
    """float16 overflows now and then, and the scaler skips such a step."""
    built, prepared = build(make_config(tiny_bert, sms_csv, adapter=adalora(r=4), train={"max_steps": 12}))
    stepper = stepper_of(built.model, prepared.task)
    stepper.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    stepper.precision = Precision(torch.float16, torch.device("cpu"))
    layer = layers_of(built.model)[0]
    broken = {3, 6}  # in the middle, and where the budget is met
    number = 0
    layer.lora_B["default"].register_hook(lambda grad: grad * float("inf") if number in broken else grad)
    batches = [prepared.task.collate(prepared.features["train"][:8])]
    for number in range(1, 13):
        before = layer.lora_A["default"].detach().clone()
        stepper.step(batches, 8, 1e-2, seed=0, number=number)
        assert torch.equal(before, layer.lora_A["default"]) == (number in broken)
        averages = METHOD.state(built.model)["exp_avg_ipt"].values()
        assert all(bool(tensor.isfinite().all()) for tensor in averages)
    assert total(METHOD.ranks(built.model)) == 4 * 13


def weighed(model: Any, draw: Any) -> Any:
    """An allocator whose averages are drawn by `draw(shape)`."""
    allocator = model.base_model.rankallocator
    generator_of = {n: p for n, p in model.base_model.model.named_parameters() if ".lora_" in n}
    for averages in (allocator.exp_avg_ipt, allocator.exp_avg_unc):
        averages.update({name: draw(p.shape) for name, p in generator_of.items()})
    return allocator


@pytest.mark.parametrize("budget", [77, 60, 52])
def test_ranks_are_given_out_as_peft_does_where_no_two_weigh_the_same(tiny_bert: Path, sms_csv: Path, budget: int):
    patterns = []
    for of_peft in (True, False):
        built, _ = build(make_config(tiny_bert, sms_csv, adapter=adalora(r=4)))
        move_trainable(built.model)
        generator = torch.Generator().manual_seed(0)
        allocator = weighed(built.model, lambda shape, g=generator: torch.rand(shape, generator=g))
        mask = RankAllocator.mask_to_budget if of_peft else type(allocator).mask_to_budget
        patterns.append(mask(allocator, built.model.base_model.model, budget))
        left = sum(int(layer.lora_E["default"].count_nonzero()) for layer in layers_of(built.model))
        assert left == sum(map(sum, patterns[-1].values())) == budget
    assert patterns[0] == patterns[1]


def test_the_budget_is_met_where_ranks_weigh_the_same(tiny_bert: Path, sms_csv: Path):
    """Layers that the loss does not reach weigh nothing; peft prunes all of them, and more than it should."""
    built, _ = build(make_config(tiny_bert, sms_csv, adapter=adalora(r=4)))
    allocator = weighed(built.model, torch.zeros)
    for name, average in allocator.exp_avg_ipt.items():
        if "layer.0" in name:  # six of thirteen layers weigh something: 36 of 78 ranks
            average.fill_(1.0), allocator.exp_avg_unc[name].fill_(1.0)
    bare = built.model.base_model.model
    assert sum(map(sum, RankAllocator.mask_to_budget(allocator, bare, 52).values())) == 36
    pattern = allocator.mask_to_budget(bare, 52)
    assert sum(map(sum, pattern.values())) == 52 and all(all(kept) for n, kept in pattern.items() if "layer.0" in n)
    assert [sum(kept) for n, kept in pattern.items() if "layer.0" not in n] == [6, 6, 4, 0, 0, 0, 0]


class SideBySide(nn.Module):
    """Eight linear layers, each with inputs and outputs of its own, so that a task can need one of them alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.columns = nn.ModuleList(nn.Linear(12, 10) for _ in range(8))

    def get_output_embeddings(self) -> None: ...

    def get_input_embeddings(self) -> nn.Module:
        return nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 8, 12) -> (B, 8, 10)"""
        return torch.stack([layer(x[:, place]) for place, layer in enumerate(self.columns)], dim=1)


@pytest.mark.parametrize("rate", [1e-2, 3e-2])
@pytest.mark.parametrize("needed", [0, 3, 5, 7])
def test_the_layer_that_a_task_needs_keeps_its_ranks(needed: int, rate: float):
    """The task's outputs are those of another weight in one layer; elsewhere they are the base's, and noise."""
    num_steps, generator = 80, torch.Generator().manual_seed(needed)
    task: Any = SideBySide()
    with torch.no_grad():
        task.columns[needed].weight += 0.5 * torch.randn(10, 12, generator=generator)
    request = Attachment(AdapterSection(**adalora(r=4, alpha=12)), [], "base", "FEATURE_EXTRACTION", num_steps)
    model = METHOD.attach(SideBySide(), request).model
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    budgets = []
    for number in range(1, num_steps + 1):
        x = torch.randn(32, 8, 12, generator=generator)
        with torch.no_grad():
            target = task(x)
        target += 0.1 * torch.randn(target.shape, generator=generator)
        optimizer.zero_grad()
        functional.mse_loss(model.get_base_model()(x), target).backward()
        METHOD.regularise(model)
        optimizer.step()
        METHOD.after_update(model, number)
        budgets.append(total(METHOD.ranks(model)))
    ranks = list(METHOD.ranks(model).values())
    assert ranks.pop(needed) == 6, "all that it started with"
    assert sum(ranks) == 8 * 4 - 6
    assert budgets[:10] == [8 * 6] * 10 and budgets[39:] == [8 * 4] * 41, "an eighth and a half of the steps"
    assert all(after <= before for before, after in itertools.pairwise(budgets))
    left = {name: int(layer.lora_E["default"].count_nonzero()) for name, layer in layers_by_name(model).items()}
    assert left == METHOD.ranks(model), "what is pruned is zero"


# What lies on disk


def shrunken(base: Path, data: Path, folder: Path, empty: bool = True) -> tuple[Any, torch.Tensor, dict[str, Any]]:
    """A model with some ranks taken away, all of one layer's where `empty`: (run's folder, logits, inputs)."""
    built, prepared = build(make_config(base, data, adapter=adalora(r=4)))
    move_trainable(built.model, 0.3)
    allocator = built.model.base_model.rankallocator
    pattern = {}
    for place, name in enumerate(layers_by_name(built.model)):
        kept = [(row + place) % 3 != 0 for row in range(6)] if place or not empty else [False] * 6
        pattern[f"{name}.lora_E.default"] = kept
    built.model.peft_config["default"].rank_pattern = pattern
    allocator.mask_using_rank_pattern(built.model.base_model.model, pattern)
    inputs = prepared.task.collate(prepared.features["validation"]).inputs
    masked = logits_of(built.model, inputs)
    METHOD.finish(built.model)
    logits = logits_of(built.model, inputs)
    torch.testing.assert_close(logits, masked, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)
    before = {name: tensor.clone() for name, tensor in built.model.state_dict().items()}
    run = RunDirectory(folder)
    write_trained(run, prepared, built, CPU)
    assert built.model.peft_config["default"].rank_pattern == pattern
    assert all(torch.equal(tensor, before[name]) for name, tensor in built.model.state_dict().items())
    return run.trained, logits, inputs


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_plain_peft_loads_it(base_models: dict[str, Path], sms_csv: Path, tmp_path: Path, name: str):
    folder, expected, inputs = shrunken(base_models[name], sms_csv, tmp_path)
    assert torch.equal(logits_of(by_peft(folder, base_models[name]), inputs), expected)
    sizes = {n: t.shape for n, t in load_file(folder / "adapter_model.safetensors").items() if "lora_E" in n}
    assert sorted({shape[0] for shape in sizes.values()}) == [0, 4], "only what is left is on disk"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_loaded_equals_in_memory_and_merged_equals_adapter(base_models, sms_csv: Path, tmp_path: Path, name: str):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder, expected, inputs = shrunken(base_models[name], sms_csv, tmp_path)
        trained = load_trained(folder)
    assert torch.equal(trained.logits(inputs, CPU), expected)
    assert trained.method is METHOD and min(METHOD.ranks(trained.model).values()) == 0
    with METHOD.as_base(trained.model, trained.base.head, lambda: None) as model:
        assert not torch.equal(logits_of(model, inputs), expected)
    trained.merge()
    torch.testing.assert_close(trained.logits(inputs, CPU), expected, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)
    assert not any("lora" in name for name, _ in trained.model.named_parameters())


def test_an_adapter_of_plain_peft_is_loaded(tiny_bert: Path, sms_csv: Path, tmp_path: Path):
    folder, expected, inputs = shrunken(tiny_bert, sms_csv, tmp_path / "run", empty=False)
    bare = Path(shutil.copytree(folder, tmp_path / "bare", ignore=shutil.ignore_patterns("lorafy.json", "probe.*")))
    assert foreign_method(bare) is METHOD
    trained = load_trained(bare)
    assert torch.equal(trained.logits(inputs, CPU), expected)
    assert set(METHOD.ranks(trained.model).values()) == {4}
