"""The seam adapters/: what of a model is trained, and how that lies on disk. Like contracts.py, for methods alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .config.schema import AdapterSection


@dataclass(frozen=True)
class Form:
    """A method with settings of the recipe's adapter section, or on a quantised base."""

    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    quantised: bool = False


class AdapterMethod(Protocol):
    """adapters/: what of a model is trained, and how that lies on disk. The file defines `METHOD`, an object of a class
    that names this one as its base: what is written here is the usual case."""

    title: str
    """The method's name in messages and tables, such as `head only`."""
    learning_rate: float
    """The peak learning rate where the recipe names none."""
    folder: str
    """Name of the folder in the run directory where what was trained is written."""
    weights: str
    """Name of the file of tensors in that folder."""
    keeps_base: bool = True
    """Whether it leaves the base's own weights as they were, so that it needs them again."""
    takes_packed: bool = True
    """Whether it works on a base whose frozen linear layers are quantised."""
    needs_packed: bool = False
    """Whether it has an effect on such a base alone."""
    needs_head: bool = False
    """Whether it trains nothing but a head, and so nothing at all in a model without one."""
    merges: bool = False
    """Whether `merge` does something."""
    reloads_exactly: bool = True
    """Whether the model from disk sums in the order in which the trained one did."""
    compare_order: int | None = None
    """Its place among the methods that `lorafy compare` trains where nobody names any; None: it is not one of them."""
    forms: Mapping[str, Form] = {}
    """Settings of it that people know by a name, for `lorafy compare`."""

    def attach(self, model: Any, request: Attachment) -> Attached:
        """Freezes and adds parameters. Trainable ones are fp32."""
        ...

    def parameter_groups(self, model: Any, config: AdapterSection) -> list[ParameterGroup]:
        """All that is trained, each group with its factor on the learning rate. config: as `attach` got it."""
        return [ParameterGroup([parameter for parameter in model.parameters() if parameter.requires_grad])]

    def regularise(self, model: Any) -> Any:
        """Adds the gradient of a term of its own to the parameters' gradients, which are those of the step's MEAN loss.

        Called once a step, however that is cut, before the gradients are clipped. Gives the term (a scalar tensor),
        which is no part of the loss that is reported; None: there is no such term."""
        return None

    def after_update(self, model: Any, step: int) -> None:
        """Called behind each update, while the gradients are still there. step: counted from 1."""
        return None

    def may_be_kept(self, model: Any, step: int) -> bool:
        """Whether the weights of this step are what was asked for, so that the best of such steps is kept. The last
        step's are."""
        return True

    def finish(self, model: Any) -> None:
        """Called once, behind the last step, before the model is saved: may change what was trained, as long as the
        outputs stay equal but for rounding."""
        return None

    def ranks(self, model: Any) -> dict[str, int] | None:
        """The rank of each adapted layer now, in model order; None: this method does not change them."""
        return None

    def state(self, model: Any) -> dict[str, Any]:
        """What of the method a checkpoint has to hold beside the trained tensors: tensors and plain values."""
        return {}

    def load_state(self, model: Any, state: Mapping[str, Any]) -> None:
        """Puts `state` back."""
        return None

    def save(self, model: Any, folder: Path, head: Sequence[str]) -> None:
        """Writes what was trained into `folder`, which is there. `model` is left as it is."""
        ...

    def claims(self, folder: Path) -> bool:
        """Whether it loads what another tool wrote there."""
        return False

    def base_section(self, section: Any, folder: Path) -> Any:
        """Where to load the model from onto which `load` puts what was trained: the recipe's model section."""
        return section

    def load(self, base: Any, folder: Path, head: Sequence[str]) -> Any:
        """The model with what was trained in it. Raises ModelError where a tensor is missing or has no place."""
        ...

    def merge(self, model: Any) -> Any:
        """One ordinary model with the same outputs. May change `model`; use what it returns."""
        return model

    def fold(self, model: Any) -> None:
        """From here on `model` computes what `merge` would give, bit for bit, and no weight of the base changes: other
        models may share them."""
        return None

    def as_base(self, model: Any, head: Sequence[str], load_base: Callable[[], Any]) -> AbstractContextManager[Any]:
        """A model that computes as the base does, as far as that can differ: under the trained head, unless the head is
        what was trained. load_base: loads the base again, as ready as `model` is."""
        ...


@dataclass(frozen=True)
class Attachment:
    """What a method is told of the model and of the run.

    head: names of modules beside the base. base_name: how the adapter's file names its base. task_type: peft's.
    num_steps: optimizer steps of the whole run. parts: a ChosenParts of models/; None: the model is of one part.
    unlearned_tokens: what the task has to write and pretraining never showed. original: gives, by a layer's name, the
    weight (out, in) in float32 that was quantised; None: the base was not quantised here.
    """

    config: AdapterSection
    head: Sequence[str]
    base_name: str
    task_type: str
    num_steps: int
    parts: Any = None
    unlearned_tokens: Sequence[int] = ()
    original: Callable[[str], Any] | None = None

    def trains(self, name: str) -> bool:
        """Whether a module or parameter is of a part that is trained. What is of another one has to stay frozen."""
        return self.parts is None or self.parts.trains(name)


@dataclass(frozen=True)
class Attached:
    """The model to train, the layers that got something, for the table of what matched, and what to tell the user."""

    model: Any
    targets: Sequence[Any] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class ParameterGroup:
    """Trained parameters, and the factor on the learning rate that is theirs."""

    parameters: list[Any]
    lr_scale: float = 1.0
