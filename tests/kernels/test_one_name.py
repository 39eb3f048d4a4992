"""An operation of the fast path has one name: in its definition, compiled, and on a GPU."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import ModuleType

import pytest
import torch

import lorafy.engine
from lorafy.engine.fast_path import FastPath
from lorafy.kernels import compiled, gpu, reference
from lorafy.objectives import TextObjective
from lorafy.objectives.classes import ClassCrossEntropy
from lorafy.types import Batch, LossOutput

EVERY = (reference, compiled, gpu)


def called() -> set[str]:
    """What engine/ calls as `ops.NAME(...)`."""
    names = set()
    for path in Path(lorafy.engine.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ops":
                names.add(node.attr)
    return names


@pytest.mark.parametrize("name", sorted(called()))
def test_what_a_network_calls_is_defined_compiled_and_written_for_a_gpu(name: str) -> None:
    parameters = [list(inspect.signature(getattr(module, name)).parameters) for module in EVERY]
    assert parameters[0] == parameters[1] == parameters[2]


def double(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


@pytest.mark.parametrize("ops", EVERY)
def test_a_new_operation_is_called_by_its_name(ops: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "double", double, raising=False)

    class Network:
        def loss(self, ops: ModuleType, batch: Batch, objective: TextObjective, recompute: bool = False) -> LossOutput:
            return objective.of_outputs(ops.double(batch.inputs["outputs"]), batch.labels)

    outputs, labels = torch.tensor([[0.5, -0.5]]), torch.tensor([0])
    batch = Batch({"outputs": outputs}, labels, [1], 1)
    found = FastPath(Network(), ClassCrossEntropy(), ops).loss(batch).loss_sum
    assert torch.equal(found, torch.nn.functional.cross_entropy(2 * outputs, labels, reduction="sum"))
