"""The model to train: the base, with what the adapter method adds to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..adapter_contract import AdapterMethod, Attachment
from ..config.schema import ModelSection
from ..metrics.numbers import size
from ..models import embedded
from ..models.load import BaseModel
from ..models.parameters import ParameterCount, count_parameters, hold_frozen_weights
from ..models.parts import ChosenParts, choose_parts
from ..models.pickles import pickled_weights
from ..models.quantise import Packed, measure
from ..models.shelf import Shelf
from ..models.targets import TargetGroup
from ..models.unquantised import Unquantised
from ..plugins import load_method
from ..types import Finding, ModelError
from .prepare import Prepared, refuse_packed


@dataclass(frozen=True)
class BuiltModel:
    """The model to train, in float32 on the CPU, the base that it was made of, and the layers that got something.

    `num_base`: parameters before anything was added, a new head included. `parts`: None where it is of one part.
    """

    model: Any
    method: AdapterMethod
    base: BaseModel
    targets: Sequence[TargetGroup]
    parameters: ParameterCount
    num_base: int
    findings: list[Finding]
    parts: ChosenParts | None = None

    def hold_frozen(self, dtype: torch.dtype) -> None:
        """Frozen linear weights in the products' dtype; as they are where the method writes them too: rounded, they
        would be saved so."""
        if self.method.keeps_base:
            hold_frozen_weights(self.model, dtype)


def build_model(prepared: Prepared, shelf: Shelf | None = None) -> BuiltModel:
    """Start values depend on the seed alone. shelf: where the base's weights may be already.

    Raises ModelError where a layer or part that is named is not there.
    """
    config, task = prepared.config, prepared.task
    method = load_method(config.adapter.method)
    base = task.load_base(config.model, config.run.seed, shelf)
    packed = measure(base.model)
    problems = [] if packed is None else refuse_packed(method)  # the folder itself may be quantised
    if problems:
        raise ModelError(problems)
    num_base = count_parameters(base.model).total
    parts = choose_parts(base.parts, config.adapter.factors)
    request = Attachment(
        config=config.adapter,
        head=base.head,
        base_name=embedded.public_name(config.model.path),
        task_type=task.kind.peft_type,
        num_steps=prepared.num_steps,
        parts=parts,
        unlearned_tokens=task.unlearned_tokens(base.model, prepared.features["train"]),
        original=None if config.model.quantise is None else Unquantised(config.model, base.model),
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.run.seed)
        attached = method.attach(base.model, request)
    for name, parameter in attached.model.named_parameters():
        if parameter.requires_grad:
            assert parameter.dtype == torch.float32, f"trainable parameter {name} is {parameter.dtype}"
            assert request.trains(name), f"{name} is trained, but its part is to stay frozen"
    notes = [Finding("adapter", "note", message) for message in attached.notes]
    findings = [*task.check_model(attached.model), *notes, *_packed_note(packed, num_base), *_pickle_note(config.model)]
    return BuiltModel(
        attached.model, method, base, attached.targets, count_parameters(attached.model), num_base, findings, parts
    )


def _packed_note(packed: Packed | None, num_base: int) -> list[Finding]:
    if packed is None:
        return []
    rest = num_base - packed.num_values
    message = (
        f"{packed.num_layers} linear layers of the base are quantised ({packed.form}): {packed.num_values:,} values in "
        f"{size(packed.num_bytes)}, {packed.share:.2f} of what they take in bfloat16; the other {rest:,} values are not"
    )
    return [Finding("quantise", "note", message)]


def _pickle_note(section: ModelSection) -> list[Finding]:
    name = pickled_weights(section)
    message = f"the weights of {section.path} are a pickle ({name}): only tensors are read from it, no code runs"
    return [] if name is None else [Finding("weights", "note", message)]
