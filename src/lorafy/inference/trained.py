"""A model from disk, and what may be done with it in which order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import torch

from ..adapter_contract import AdapterMethod
from ..config.schema import ModelSection
from ..contracts import Task
from ..kernels.packed import is_packed
from ..models.load import BaseModel
from ..models.parameters import hold_frozen_weights
from ..models.precision import Precision
from ..models.trained_files import PROBE, Manifest


class State(Enum):
    """How far a Trained has come; each state is reached from one before it."""

    LOADED = "in float32, as it lies on disk: what was trained stands beside the base's weights"
    MERGED = "in float32, one ordinary model where its base is not quantised"
    READY = "on its device, frozen, for use alone"
    RELEASED = "without weights"


@dataclass
class Trained:
    """What was trained, or a model as it comes (`folder` and `method` None); in eval mode. Begins LOADED, on the CPU.

    manifest: None where another tool wrote the folder. section: where the base lies. base: what was loaded of it.
    shares_base: others compute with the base's weights too, which therefore stay as they are.
    """

    model: Any
    task: Task
    method: AdapterMethod | None
    manifest: Manifest | None
    folder: Path | None
    base: BaseModel
    precision: Precision
    section: ModelSection
    state: State = State.LOADED
    shares_base: bool = False

    def merge(self) -> None:
        """Folds what was trained into the base's weights: one ordinary model. LOADED or MERGED -> MERGED.

        A quantised base stays as it is, with what was trained beside it: folded in, it would need its whole memory. A
        base that others share stays too, and the model computes as if what was trained were folded in."""
        self._require(State.LOADED, State.MERGED)
        if self.method is not None and self.state is State.LOADED and not is_packed(self.model):
            if self.shares_base:
                self.method.fold(self.model)
            else:
                self.model = self.method.merge(self.model)
        self.state = State.MERGED

    def place(self) -> None:
        """Moves the model to its device, its weights in float32. LOADED or MERGED -> READY."""
        self._require(State.LOADED, State.MERGED)
        self.model.to(self.precision.device).eval()
        self.state = State.READY

    def settle(self) -> None:
        """Freezes the model and moves it to its device, its linear weights in the products' dtype: half of the memory
        in bfloat16. LOADED or MERGED -> READY."""
        self.model.requires_grad_(False)
        hold_frozen_weights(self.model, self.precision.dtype)
        self.place()

    def release(self) -> None:
        """Lets the weights go: two models of some billion values do not fit beside each other. -> RELEASED."""
        self.model, self.base = None, replace(self.base, model=None)
        self.state = State.RELEASED

    @torch.inference_mode()
    def logits(self, inputs: Mapping[str, torch.Tensor], precision: Precision) -> torch.Tensor:
        """The task's outputs on a probe, fp32, on the CPU. LOADED or MERGED: the model goes to `precision`'s device."""
        self._require(State.LOADED, State.MERGED)
        self.model.to(precision.device)
        return outputs_on_probe(self.task, self.model, inputs, precision)

    @torch.inference_mode()
    def base_logits(self, inputs: Mapping[str, torch.Tensor], precision: Precision) -> torch.Tensor:
        """The task's outputs on a probe without what was learned, fp32, on the CPU. LOADED."""
        self._require(State.LOADED)
        assert self.method is not None, "a model as it comes has learned nothing here"

        def load() -> Any:
            return self.load_base().model.to(precision.device).eval()

        self.model.to(precision.device)
        with self.method.as_base(self.model, self.base.head, load) as model:
            return outputs_on_probe(self.task, model, inputs, precision)

    def load_base(self) -> BaseModel:
        """The base as it was before training, once more; in any state."""
        seed = 0 if self.manifest is None else self.manifest.seed
        return self.task.load_base(self.section, seed)

    def original(self) -> Any:
        """The base model, ready for use as this one is after `settle`; in any state."""
        base = self.load_base()
        other = replace(self, model=base.model, base=base, state=State.LOADED)
        other.settle()
        return other.model

    def probe(self) -> dict[str, torch.Tensor]:
        """The inputs that lie beside the weights; for what another tool wrote, some that are made here."""
        from safetensors.torch import load_file

        path = None if self.folder is None else self.folder / PROBE
        if path is not None and path.is_file():
            return {name: tensor for name, tensor in load_file(path).items() if name != "logits"}
        return self.task.probe(self.task.encode(self.task.kind.probe_examples()).features)

    def _require(self, *states: State) -> None:
        assert self.state in states, f"a model that is {self.state.name} cannot do this"


def outputs_on_probe(task: Task, model: Any, inputs: Mapping[str, torch.Tensor], precision: Precision) -> torch.Tensor:
    """The task's outputs of `model`, which is on the precision's device, on a probe: fp32, on the CPU."""
    placed = {name: tensor.to(precision.device) for name, tensor in inputs.items()}
    with precision.autocast():
        return task.probe_outputs(model, placed)


class Speakers:
    """A tuned model and its base, one of them at a time, sharing weights where the method can switch itself off."""

    def __init__(self, trained: Trained):
        trained._require(State.READY)
        self._trained = trained
        self._base: Any = None

    @property
    def has_base(self) -> bool:
        """Whether the base is another model; False for a model as it comes, which is its own base."""
        return self._trained.folder is not None

    @contextmanager
    def __call__(self, base: bool) -> Iterator[Any]:
        """The model that speaks, for as long as the `with` lasts."""
        trained = self._trained
        if not base or trained.method is None:
            yield trained.model
            return
        with trained.method.as_base(trained.model, trained.base.head, self._load) as model:
            yield model

    def _load(self) -> Any:
        """The base model: loaded when it is first asked, and kept."""
        if self._base is None:
            self._base = self._trained.original()
        return self._base
