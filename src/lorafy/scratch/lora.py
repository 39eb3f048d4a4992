"""LoRA written out (Hu et al. 2021): y = W x + scaling * B A x, where W stays as it is and only A and B are trained."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

Scaling = Literal["paper", "plain"]
"""What alpha means. paper: scaling = alpha / rank, as in the paper and in peft. plain: scaling = alpha."""


def scaling_factor(alpha: float, rank: int, scaling: Scaling) -> float:
    """What B A x is multiplied with."""
    if scaling not in ("paper", "plain"):
        raise ValueError(f"scaling is {scaling!r}, not 'paper' (alpha / rank) or 'plain' (alpha)")
    return alpha / rank if scaling == "paper" else float(alpha)


def equal_alpha(alpha: float, rank: int, from_: Scaling, to: Scaling) -> float:
    """The alpha that means in the convention `to` what `alpha` means in the convention `from_`."""
    return alpha * scaling_factor(1, rank, from_) / scaling_factor(1, rank, to)


class LoRALayer(nn.Module):
    """scaling * B A x. B starts as zeros, so before the first step this layer adds exactly nothing."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        alpha: float,
        scaling: Scaling = "paper",
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank is {rank}; the smallest that trains anything is 1")
        self.rank, self.alpha, self.convention = rank, alpha, scaling
        self.scaling = scaling_factor(alpha, rank, scaling)
        self.lora_A = nn.Parameter(torch.empty(rank, in_features, dtype=dtype))
        self.lora_B = nn.Parameter(torch.zeros(out_features, rank, dtype=dtype))
        # As peft does. If A were zeros too, neither would ever get a gradient.
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5), generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (..., in_features) -> (..., out_features), by way of only `rank` numbers."""
        return self.scaling * (x @ self.lora_A.T @ self.lora_B.T)

    def update(self) -> torch.Tensor:
        """The whole change of the weight, scaling * B A: (out_features, in_features)."""
        return self.scaling * (self.lora_B @ self.lora_A)

    def extra_repr(self) -> str:
        return f"rank={self.rank}, alpha={self.alpha}, scaling={self.scaling:g}"


class LinearWithLoRA(nn.Module):
    """A linear layer as it was, and beside it what LoRA adds."""

    def __init__(
        self,
        linear: nn.Linear,
        rank: int,
        alpha: float,
        scaling: Scaling = "paper",
        *,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.linear = linear
        self.lora = LoRALayer(
            linear.in_features,
            linear.out_features,
            rank,
            alpha,
            scaling,
            generator=generator,
            dtype=linear.weight.dtype,
        ).to(linear.weight.device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.lora(x)

    def merge(self) -> nn.Linear:
        """One linear layer that computes the same: W + scaling * B A. This layer stays as it is."""
        return _changed(self.linear, self.lora.update())

    def unmerge(self, merged: nn.Linear) -> nn.Linear:
        """W again, from a merged layer. Equal to rounding, no closer: (W + x) - x rounds twice."""
        return _changed(merged, -self.lora.update())


@dataclass(frozen=True)
class LoRAReport:
    """What `replace_linear_with_lora` did: the layers' names in the model, and how many parameters A and B have."""

    names: tuple[str, ...]
    num_parameters: int

    @property
    def num_layers(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        return f"{self.num_layers} linear layers got LoRA: {self.num_parameters:,} parameters added"


def replace_linear_with_lora(
    model: nn.Module,
    rank: int = 16,
    alpha: float = 32,
    scaling: Scaling = "paper",
    skip: Sequence[str] = (),
    *,
    seed: int = 123,
) -> LoRAReport:
    """Every nn.Linear in `model`, however deep, becomes a LinearWithLoRA. Freezes nothing: see `freeze_all_but_lora`.

    skip: names of modules to leave as they are, with all that is inside: `head`, or in full `blocks.0.attention`.
    Layers that have LoRA already are left alone. ValueError where a name of `skip` is nowhere, where there is nothing
    to replace, and for a model that is itself a linear layer (there is nothing to replace it in).
    """
    if isinstance(model, nn.Linear):
        raise ValueError("a lone linear layer has no place to be replaced in: use LinearWithLoRA(linear, rank, alpha)")
    _check_names(model, skip)
    generator = torch.Generator().manual_seed(seed)
    made: dict[nn.Module, LinearWithLoRA] = {}
    names = []
    for name, module in _everywhere(model):
        # Not its subclasses: nn.MultiheadAttention has one whose forward is never called.
        if type(module) is not nn.Linear or _is_named(name, skip):
            continue
        if isinstance(model.get_submodule(name.rpartition(".")[0]), LinearWithLoRA):
            continue
        if module not in made:  # else it stands in two places, and stays one layer in both
            made[module] = LinearWithLoRA(module, rank, alpha, scaling, generator=generator)
            names.append(name)
        model.set_submodule(name, made[module])
    if not names:
        raise ValueError("no linear layer without LoRA was found, so nothing was replaced")
    return LoRAReport(tuple(names), sum(p.numel() for layer in made.values() for p in layer.lora.parameters()))


@dataclass(frozen=True)
class FreezeReport:
    """What is trained after `freeze_all_but_lora`: parameters of LoRA, of the parts named in `also`, and of all."""

    num_lora: int
    num_also: int
    num_total: int

    @property
    def num_trainable(self) -> int:
        return self.num_lora + self.num_also

    def __str__(self) -> str:
        share = self.num_trainable / self.num_total
        return (
            f"{self.num_trainable:,} of {self.num_total:,} parameters are trained ({share:.2%}): "
            f"{self.num_lora:,} of LoRA, {self.num_also:,} besides"
        )


def freeze_all_but_lora(model: nn.Module, also: Sequence[str] = ()) -> FreezeReport:
    """Only A, B and what `also` names are trained from now on.

    also: modules or parameters, as in `skip` above. A head with random weights belongs here: frozen, it stays random.
    """
    _check_names(model, also)
    of_lora = {id(p) for _, layer in lora_layers(model) for p in layer.lora.parameters()}
    if not of_lora:
        raise ValueError("the model has no LoRA: everything would be frozen; call replace_linear_with_lora first")
    num_lora = num_also = num_total = 0
    for name, parameter in model.named_parameters():
        is_lora = id(parameter) in of_lora
        is_also = not is_lora and _is_named(name, also)
        parameter.requires_grad_(is_lora or is_also)
        num_lora += parameter.numel() * is_lora
        num_also += parameter.numel() * is_also
        num_total += parameter.numel()
    return FreezeReport(num_lora, num_also, num_total)


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(trainable, total). A parameter that is used in two places counts once."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LinearWithLoRA]]:
    """Every layer with LoRA, and its name in the model."""
    for name, module in model.named_modules():
        if isinstance(module, LinearWithLoRA):
            yield name, module


def merge_lora(model: nn.Module) -> nn.Module:
    """A copy of the model without LoRA, its updates added to the weights: the same outputs, none of the extra work.

    `model` itself stays as it is.
    """
    if isinstance(model, LinearWithLoRA):
        return model.merge()
    merged = copy.deepcopy(model)
    made: dict[nn.Module, nn.Linear] = {}
    for name, module in _everywhere(merged):
        if isinstance(module, LinearWithLoRA):
            if module not in made:
                made[module] = module.merge()
            merged.set_submodule(name, made[module])
    if not made:
        raise ValueError("the model has no LoRA to merge")
    return merged


def unmerge_lora(merged: nn.Module, model: nn.Module) -> nn.Module:
    """A copy of `model` whose weights are those of `merged` less the updates of `model`: the way back, to rounding."""
    parted = copy.deepcopy(model)
    for name, layer in lora_layers(parted):
        linear = merged.get_submodule(name)
        assert isinstance(linear, nn.Linear), f"{name} is no merged linear layer"
        layer.linear = layer.unmerge(linear)
    return parted


def lora_state_dict(model: nn.Module, also: Sequence[str] = ()) -> dict[str, torch.Tensor]:
    """What has to be kept of a training: copies of A and B of every layer, and of what `also` names (the head)."""
    _check_names(model, also)
    of_lora = {f"{name}.lora." if name else "lora." for name, _ in lora_layers(model)}
    return {
        name: tensor.detach().clone()
        for name, tensor in model.state_dict().items()
        if any(name.startswith(prefix) for prefix in of_lora) or _is_named(name, also)
    }


def load_lora_state_dict(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Into a model with LoRA on the same layers. ValueError where a tensor has no place, or a LoRA no tensor."""
    missing = sorted(lora_state_dict(model).keys() - state.keys())
    strange = sorted(state.keys() - model.state_dict().keys())
    if missing or strange:
        raise ValueError(f"not the LoRA of this model: missing {missing[:3]}, not in the model {strange[:3]}")
    model.load_state_dict(state, strict=False)


def _changed(linear: nn.Linear, difference: torch.Tensor) -> nn.Linear:
    """A copy of `linear` with another weight."""
    new = copy.deepcopy(linear)
    with torch.no_grad():
        new.weight += difference
    return new


def _everywhere(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """All modules below the model and their names, a module in two places twice. A list: we change what we walk."""
    return [(name, module) for name, module in model.named_modules(remove_duplicate=False) if name]


def _is_named(name: str, wanted: Iterable[str]) -> bool:
    """`head.weight` is named by `head`, and `blocks.0.head` by `head`, `blocks.0` and `blocks`."""
    return any(f".{each}." in f".{name}." for each in wanted)


def _check_names(model: nn.Module, wanted: Sequence[str]) -> None:
    """A misspelt name would silently do nothing."""
    there = [name for name, _ in [*model.named_modules(), *model.named_parameters()]]
    unknown = [each for each in wanted if not any(_is_named(name, [each]) for name in there)]
    if unknown:
        raise ValueError(f"no module or parameter of the model is called {', '.join(unknown)}")
