"""Pretrained weights that are loaded once and held once, however many models are made of them."""

from __future__ import annotations

import copy
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..config.schema import ModelSection
from ..kernels.memory import lie_alone
from ..kernels.packed import packed_layers
from .parts import PEFT_PREFIX

WRAPPED = (".base_layer", ".original_module", ".token_adapter")
"""What peft puts into the names of weights that it wraps."""


@dataclass(frozen=True)
class Kept:
    """What one checkpoint gave to a class of models. checksums: as it was loaded."""

    kind: Any
    tensors: Mapping[str, torch.Tensor]
    name: str
    generation_config: Any
    checksums: Mapping[str, int]

    @property
    def is_unchanged(self) -> bool:
        """Whether every byte is as it was loaded."""
        return all(_checksum(tensor) == self.checksums[name] for name, tensor in self.tensors.items())


class Shelf:
    """Weights by where they lie. A model that is made of them has Parameters of its own over the same memory, which
    nobody writes into: `is_unchanged` tells."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], Kept] = {}
        self._shared: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
        self._memory: list[tuple[Any, int]] = []

    def load(self, section: ModelSection, auto: Any, config: Any, **loading: Any) -> Any:
        """The model and what transformers tells of its loading, made of weights that are here; None where they are not.
        Missing weights start as they would from the files. auto: the class of transformers. config: the model's."""
        kept = self._kept.get(_place(section, auto))
        if kept is None:
            return None
        model, told = kept.kind.from_pretrained(None, config=config, state_dict=dict(kept.tensors), **loading)
        model.name_or_path = model.config._name_or_path = kept.name
        if kept.generation_config is not None:
            model.generation_config = copy.deepcopy(kept.generation_config)
        return model, told

    def put(self, section: ModelSection, auto: Any, loaded: Any) -> None:
        """Keeps the weights of a model that was just loaded from its files. Not those of quantised layers, which are no
        plain tensors, nor where the head of the files was of another size: the next one may want it."""
        model, told = loaded
        if packed_layers(model) or told["mismatched_keys"]:
            return
        tensors = {name: tensor for name, tensor in model.state_dict().items() if name not in told["missing_keys"]}
        generation = copy.deepcopy(model.generation_config) if model.can_generate() else None
        sums = {name: _checksum(tensor) for name, tensor in tensors.items()}
        self._kept[_place(section, auto)] = Kept(type(model), tensors, model.name_or_path, generation, sums)

    def drop_changed(self) -> bool:
        """Lets go of weights that are not as they were loaded: they are loaded again. Whether there were any."""
        changed = [place for place, kept in self._kept.items() if not kept.is_unchanged]
        for place in changed:
            del self._kept[place]
        return bool(changed)

    def close(self) -> None:
        """Lets go of all weights but those that models hold; from here on these may be cast and moved."""
        self._kept.clear()
        self._memory.clear()

    def share(self, model: Any, own: Sequence[str] = ()) -> None:
        """Puts the Parameters of earlier models in the place of equal ones of this one: then they are the same objects,
        and what casts or moves them does so for all of these models. own: modules whose Parameters stay its own."""
        layers = packed_layers(model)
        for name, parameter in list(model.named_parameters(remove_duplicate=False)):
            layer_name, _, own_name = name.rpartition(".")
            if any(f"{layer_name}.".startswith(f"{module}.") for module in own):
                continue
            layer = layers.get(layer_name) if own_name == "weight" else None
            known = self._shared[_bare(name)]
            twin = next((other for other in known if _is_equal(other, parameter, layer)), None)
            if twin is None:
                known.append((parameter, layer))
                self._memory.append((parameter, parameter.data_ptr()))
            elif twin[0] is not parameter:
                setattr(model.get_submodule(layer_name), own_name, twin[0])

    @property
    def is_unchanged(self) -> bool:
        """Whether the weights here are as they were loaded, and the Parameters that models share are still those."""
        moved = any(parameter.data_ptr() != place for parameter, place in self._memory)
        return not moved and all(kept.is_unchanged for kept in self._kept.values())


def own(model: Any, modules: list[str]) -> None:
    """Gives the Parameters of these modules memory of their own, so that they may be written."""
    for name in modules:
        for parameter in model.get_submodule(name).parameters():
            lie_alone(parameter)


def _place(section: ModelSection, auto: Any) -> tuple[Any, ...]:
    return section.path, section.revision, section.quantise, section.trust_remote_code, auto.__name__


def _bare(name: str) -> str:
    bare = name.removeprefix(PEFT_PREFIX)
    for part in WRAPPED:
        bare = bare.replace(part, "")
    return bare


def _is_equal(other: tuple[Any, Any], parameter: Any, layer: Any) -> bool:
    there, its_layer = other
    if there is parameter:
        return True
    alike = (there.dtype, there.shape, there.device) == (parameter.dtype, parameter.shape, parameter.device)
    if not alike or (layer is None) != (its_layer is None):
        return False
    if there.data_ptr() != parameter.data_ptr() and not torch.equal(there, parameter):
        return False
    return layer is None or (layer.form == its_layer.form and all(map(torch.equal, layer.scales, its_layer.scales)))


def _checksum(tensor: torch.Tensor) -> int:
    values: Any = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return zlib.crc32(values)
