"""AdaLoRA (Zhang et al. 2023) through peft: W x + (alpha / init_r) B E A x, E diagonal, W frozen.

Entries of E are pruned until the ranks of all layers add up to a budget: those that matter least, by averages over the
steps of |weight * gradient| (section 3.2). What was pruned may come back until the budget is met.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import AdaLoraConfig, get_peft_model
from peft.tuners.adalora import AdaLoraLayer, RankAllocator
from torch import nn

from ..adapter_contract import Attached, Attachment
from ..config.schema import AdapterSection
from ..models.parts import PEFT_PREFIX
from ..models.targets import TargetGroup, group_targets
from ..run_directory import read_json
from ..types import ConfigError, Problem
from .lora import Lora, peft_settings, quiet_peft

ADAPTER = "default"
"""peft's name of the one adapter."""

START = 1.5
"""The rank at the start in units of the last one's average, as in peft's defaults (init_r 12, target_r 8)."""

ALLOCATIONS = 200
"""How often ranks are given out anew. The authors' scripts for GLUE: 64 to 1,500 times, 230 in the middle."""


@dataclass(frozen=True)
class Schedule:
    """When ranks are taken away, in steps, by peft's names."""

    total_step: int
    tinit: int
    tfinal: int
    deltaT: int

    @property
    def met_at(self) -> int:
        """The step behind which the budget is met; from there on the ranks stay."""
        return self.total_step - self.tfinal


class Allocator(RankAllocator):
    """peft's, which leaves fewer ranks than the budget where the last ones weigh the same: it prunes all that are not
    above the lowest score. Of equal ones the first in the model's order are kept here."""

    def mask_to_budget(self, model: Any, budget: int) -> dict[str, list[bool]]:
        """Prunes all but `budget` entries of E, those with the highest scores; gives what is kept by E's name."""
        matrices = {name: p for name, p in model.named_parameters() if f".lora_E.{ADAPTER}" in name}
        scores = torch.cat([self._scores(name) for name in matrices])
        kept = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
        kept[scores.argsort(descending=True, stable=True)[:budget]] = True
        of_layers = kept.split([len(matrix) for matrix in matrices.values()])
        with torch.no_grad():
            for matrix, rows in zip(matrices.values(), of_layers, strict=True):
                matrix.masked_fill_(~rows[:, None], 0.0)
        return {name: rows.tolist() for name, rows in zip(matrices, of_layers, strict=True)}

    def _scores(self, name_E: str) -> torch.Tensor:
        """An entry's own, and the means over its row of A and its column of B (section 3.2, equation 8). (r,)"""
        A, B = (self._element_score(name_E.replace(".lora_E.", part)) for part in (".lora_A.", ".lora_B."))
        return self._element_score(name_E).flatten() + A.mean(1) + B.mean(0)


class AdaLora(Lora):
    """See `AdapterMethod`. Trained are A, E, B and the whole head. r is the ranks' average at the end, so that what is
    saved is as large as LoRA's of that r."""

    title = "AdaLoRA"
    learning_rate = 5e-3  # between the authors' 5e-4 to 2.2e-3 for GLUE, of thousands of steps, and what few steps need

    def __init__(self) -> None:
        self._of_task: list[torch.Tensor] = []

    def claims(self, folder: Path) -> bool:
        """peft's folders of this method."""
        path = folder / "adapter_config.json"
        return path.is_file() and read_json(path).get("peft_type") == "ADALORA"

    def attach(self, model: Any, request: Attachment) -> Attached:
        """Wraps the target layers. Raises ConfigError for a schedule or a rank that does not fit."""
        config, chosen = request.config, self.choose(model, request)
        groups = group_targets(model, chosen.targets, request.parts)
        schedule, init_r = make_schedule(config, request.num_steps), math.ceil(START * config.r)
        problems = [*_misfits(schedule), *_too_high(config.r, init_r, groups)]
        if problems:
            raise ConfigError(problems)
        peft_config = AdaLoraConfig(
            init_r=init_r, target_r=config.r, **asdict(schedule), **peft_settings(model, request, chosen)
        )
        with quiet_peft():
            peft_model = get_peft_model(model, peft_config)
        peft_model.peft_config[ADAPTER].base_model_name_or_path = request.base_name
        tuner: Any = peft_model.base_model
        tuner.rankallocator = Allocator(tuner.model, peft_config, ADAPTER)
        return Attached(peft_model, groups, [_note(schedule, init_r, config.r, len(chosen.targets)), *chosen.notes])

    def regularise(self, model: Any) -> torch.Tensor:
        """orth_reg_weight times the mean over all A and B of |A A' - I| and |B' B - I|, Frobenius norms.

        So the authors' code and peft compute it, to which their weights belong; the paper's formula (section 3.1) sums
        the squares. peft adds it to a loss that the model itself computes, which here the objective does.
        """
        trained = [matrix for _, layer in _layers(model) for matrix in _matrices(layer)]
        # The ranks are weighed by these. With the term's own gradient, whose size depends on a layer's shape alone, a
        # small learning rate gives the same ranks whatever the task needs. (float16 may have overflowed.)
        self._of_task = [_gradient(matrix).nan_to_num(0, 0, 0) for matrix in trained]
        term = orthogonality(model)
        for matrix, of_term in zip(trained, torch.autograd.grad(term, trained, materialize_grads=True), strict=True):
            _gradient(matrix).add_(of_term)
        return term.detach()

    def after_update(self, model: Any, step: int) -> None:
        """Weighs the entries by weight and gradient, and prunes as the schedule says."""
        trained = [matrix for _, layer in _layers(model) for matrix in _matrices(layer)]
        for matrix, of_task in zip(trained, self._of_task, strict=True):
            _gradient(matrix).copy_(of_task)
        model.base_model.update_and_allocate(step)

    def may_be_kept(self, model: Any, step: int) -> bool:
        """From the step on at which the budget is met."""
        config = model.peft_config[ADAPTER]
        return bool(step >= config.total_step - config.tfinal)

    def ranks(self, model: Any) -> dict[str, int]:
        """As the last allocation left them; between two of them peft lets pruned entries come back."""
        kept = _pattern(model)
        sizes = {name: len(layer.lora_E[ADAPTER]) for name, layer in _layers(model)}
        return {name: sum(kept[name]) if name in kept else size for name, size in sizes.items()}

    def state(self, model: Any) -> dict[str, Any]:
        """What is pruned, and the averages that decide it."""
        allocator = model.base_model.rankallocator
        return {
            "rank_pattern": model.peft_config[ADAPTER].rank_pattern,
            "exp_avg_ipt": allocator.exp_avg_ipt,
            "exp_avg_unc": allocator.exp_avg_unc,
        }

    def load_state(self, model: Any, state: Mapping[str, Any]) -> None:
        """See `state`."""
        model.peft_config[ADAPTER].rank_pattern = state["rank_pattern"]
        allocator, device = model.base_model.rankallocator, next(model.parameters()).device
        for name in ("exp_avg_ipt", "exp_avg_unc"):
            setattr(allocator, name, {key: tensor.to(device) for key, tensor in state[name].items()})
        # Of the last step alone: peft starts the averages at zero where it is not there.
        allocator.ipt = {key: torch.zeros_like(tensor) for key, tensor in allocator.exp_avg_ipt.items()}

    def finish(self, model: Any) -> None:
        """Takes the pruned rows out, as peft does where it loads them."""
        layers = dict(_layers(model))
        for name, kept in _pattern(model).items():
            layer, rows = layers[name], torch.tensor(kept)
            for held, columns in ((layer.lora_E, False), (layer.lora_A, False), (layer.lora_B, True)):
                whole = held[ADAPTER].detach()
                held[ADAPTER] = nn.Parameter(whole[:, rows] if columns else whole[rows])
            layer.r[ADAPTER] = sum(kept)

    def save(self, model: Any, folder: Path, head: Sequence[str]) -> None:
        """Writes the adapter in peft's format."""
        config = model.peft_config[ADAPTER]
        before = config.rank_pattern
        with _without_false_alarms():
            super().save(model, folder, head)
        config.rank_pattern = before  # peft leaves shorter names there

    def load(self, base: Any, folder: Path, head: Sequence[str]) -> Any:
        """The base with the adapter on it."""
        with _without_false_alarms():
            return super().load(base, folder, head)


def orthogonality(model: Any) -> torch.Tensor:
    """The term that `AdaLora.regularise` adds."""
    norms = []
    for _, layer in _layers(model):
        A, _, B = _matrices(layer)
        eye = torch.eye(len(A), device=A.device, dtype=A.dtype)
        norms += [torch.linalg.matrix_norm(A @ A.T - eye), torch.linalg.matrix_norm(B.T @ B - eye)]
    return model.peft_config[ADAPTER].orth_reg_weight * torch.stack(norms).mean()


def make_schedule(config: AdapterSection, num_steps: int) -> Schedule:
    """The recipe's; where it says nothing, shares of all steps as in the authors' scripts for GLUE (tinit 9 to 18 %,
    tfinal 44 to 58 % of them)."""
    tinit = num_steps // 8 if config.tinit is None else config.tinit
    # A step before the budget is met, to weigh the entries by.
    tfinal = max(0, min(num_steps // 2, num_steps - 2)) if config.tfinal is None else config.tfinal
    deltaT = max(1, (num_steps - tfinal - tinit) // ALLOCATIONS) if config.deltaT is None else config.deltaT
    return Schedule(num_steps, tinit, tfinal, deltaT)


def _misfits(schedule: Schedule) -> list[Problem]:
    """Why the schedule cannot be kept."""
    steps, between = schedule.total_step, schedule.met_at - schedule.tinit
    if steps < 2:
        return [Problem("train.max_steps", "AdaLoRA needs two steps: one to weigh the ranks by", "train longer")]
    if between < 1 or schedule.met_at < 2:
        parts = f"tinit {schedule.tinit:,} and tfinal {schedule.tfinal:,} leave none of the {steps:,} steps"
        return [Problem("adapter.tfinal", f"{parts} to take ranks away in", "lower one of them, or train longer")]
    if schedule.deltaT > between:
        message = f"{schedule.deltaT:,} is more than the {between:,} steps in which ranks are taken away"
        return [Problem("adapter.deltaT", message, f"at most {between}, or remove it")]
    return []


def _too_high(r: int, init_r: int, groups: Sequence[TargetGroup]) -> list[Problem]:
    """A layer has at most as many singular values as its smaller side."""
    least = min(groups, key=lambda group: min(group.in_features, group.out_features))
    side = min(least.in_features, least.out_features)
    if init_r <= side:
        return []
    message = f"AdaLoRA starts at {START} times r = {r}, at rank {init_r}, but {least.name} has {side} rows or columns"
    most = int(side / START)
    fix = f"adapter.r={most} at most, or leave that layer out of adapter.target_modules"
    return [Problem("adapter.r", message, fix)]


def _note(schedule: Schedule, init_r: int, r: int, num_layers: int) -> str:
    often = "every step" if schedule.deltaT == 1 else f"every {schedule.deltaT:,} steps"
    return (
        f"AdaLoRA starts with rank {init_r} in each of {num_layers} layers; from step {schedule.tinit + 1:,} to "
        f"{schedule.met_at:,} of {schedule.total_step:,} it takes ranks away, {often}, until {r * num_layers:,} are "
        f"left, {r} a layer on average"
    )


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    """The adapted layers, by their names in the base."""
    for name, module in model.named_modules():
        if isinstance(module, AdaLoraLayer):
            yield name.removeprefix(PEFT_PREFIX), module


def _matrices(layer: Any) -> tuple[nn.Parameter, nn.Parameter, nn.Parameter]:
    return layer.lora_A[ADAPTER], layer.lora_E[ADAPTER], layer.lora_B[ADAPTER]


def _gradient(matrix: nn.Parameter) -> torch.Tensor:
    assert matrix.grad is not None, "the optimizer gives every trained tensor a gradient"
    return matrix.grad


def _pattern(model: Any) -> dict[str, list[bool]]:
    """Which entries of E are kept, by the layer's name; empty before the first allocation."""
    pattern = model.peft_config[ADAPTER].rank_pattern or {}
    return {name.removesuffix(f".{ADAPTER}").removesuffix(".lora_E"): kept for name, kept in pattern.items()}


@contextmanager
def _without_false_alarms() -> Iterator[None]:
    """A layer may end without any rank: torch and peft warn of tensors without values; and peft looks for the layers of
    its own rank_pattern under LoRA's names."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors", category=UserWarning)
        warnings.filterwarnings("ignore", message="The following rank_pattern keys", category=RuntimeWarning)
        warnings.filterwarnings("ignore", message=".*LoRA tensor\\(s\\) have invalid shape", category=UserWarning)
        yield


METHOD = AdaLora()
