"""The model to train: the base, with what the adapter method adds to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..contracts import AdapterMethod, Attachment
from ..models import embedded
from ..models.load import BaseModel
from ..models.parameters import ParameterCount, count_parameters
from ..models.targets import TargetGroup
from ..plugins import load_method
from ..types import Finding
from .prepare import Prepared


@dataclass(frozen=True)
class BuiltModel:
    """The model to train, in float32 on the CPU, the base that it was made of, and the layers that got something.

    `num_base`: parameters before anything was added, a new head included.
    """

    model: Any
    method: AdapterMethod
    base: BaseModel
    targets: Sequence[TargetGroup]
    parameters: ParameterCount
    num_base: int
    findings: list[Finding]


def build_model(prepared: Prepared) -> BuiltModel:
    """Start values depend on the seed alone. Raises ModelError where a layer that is named is not there."""
    config, task = prepared.config, prepared.task
    method = load_method(config.adapter.method)
    base = task.load_base(config.model, config.run.seed)
    num_base = count_parameters(base.model).total
    request = Attachment(
        config=config.adapter,
        head=base.head,
        base_name=embedded.public_name(config.model.path),
        task_type=task.kind.peft_type,
        num_steps=prepared.num_steps,
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.run.seed)
        attached = method.attach(base.model, request)
    for name, parameter in attached.model.named_parameters():
        if parameter.requires_grad:
            assert parameter.dtype == torch.float32, f"trainable parameter {name} is {parameter.dtype}"
    findings = task.check_model(attached.model)
    return BuiltModel(
        attached.model, method, base, attached.targets, count_parameters(attached.model), num_base, findings
    )
