"""The seams, as protocols, on one page. A plug-in is one file (or folder) in a seam's folder; its name is that in YAML.

How it is found: plugins.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .types import (
    Batch,
    Conversation,
    Encoded,
    Example,
    Features,
    Finding,
    LossOutput,
    PlacedPicture,
    Problem,
)

if TYPE_CHECKING:
    from .config.schema import AdapterSection, Columns
    from .metrics import Metric


class Format(Protocol):
    """formats/: a raw record becomes an Example or a Conversation. Pure."""

    PRECEDENCE: int
    """Place in the order in which formats are asked whether they recognise the columns: the lowest first."""

    def recognises(self, names: Sequence[str], config: Columns) -> bool:
        """Whether columns with these names, or the recipe's mapping, are of this format."""

    def resolve_columns(self, names: Sequence[str], config: Columns, where: str, *, answered: bool = True) -> Columns:
        """Which column plays which part; without the label or answer where `answered` is false.

        Raises DataError naming the columns that are there.
        """

    def parse(
        self,
        record: Mapping[str, Any],
        columns: Columns,
        source: str,
        row: int,
        label_names: Mapping[str, list[str]],
    ) -> Example | Conversation:
        """One record as an Example or a Conversation. Raises DataError where it is not of this format; the caller names
        the row."""


class Objective(Protocol):
    """What training lowers, apart from the task that chooses it."""

    @property
    def reads(self) -> str:
        """`texts` or `tokens`: what a row of the model's outputs stands for."""

    @property
    def score(self) -> Metric:
        """The metric that is counted beside the loss, such as accuracy; it stands under its key in metrics.jsonl."""

    def loss(self, model: Any, batch: Batch) -> LossOutput:
        """Loss and score SUMMED over the targets, never averaged; fp32, by the model's own forward pass."""

    def ignored(self, labels: Any) -> Any:
        """Labels of the same shape that take no part in the loss."""


class TextObjective(Objective, Protocol):
    """An objective that needs no more than the outputs of the head, so that the fast path can serve it too."""

    def of_outputs(self, outputs: Any, labels: Any) -> LossOutput:
        """Loss and score SUMMED over texts. outputs: (B, C), fp32; labels: (B,) or (B, C)."""


class Task(Protocol):
    """What a model learns from examples, with the tokenizer, the lengths and the labels of one recipe or one manifest.

    The training loop, the step and the pre-flight checks know no more of a task than this.
    """

    @property
    def name(self) -> str:
        """The stem of its file in tasks/."""

    @property
    def objective(self) -> Any:
        """What training lowers: an Objective."""

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, saved beside the weights so that inference reads as training did."""

    @property
    def max_length(self) -> int:
        """The longest sequence in tokens."""

    @property
    def max_tokens(self) -> int | None:
        """The most padded tokens of one micro-batch that this task's outputs allow; None: no limit of its own."""

    @property
    def kind(self) -> TaskKind:
        """Its TaskKind: how such tasks come to be, and what they are to people."""

    @property
    def best_metric(self) -> str:
        """Key of the validation metric that chooses the best checkpoint."""

    @property
    def patches(self) -> Callable[[PlacedPicture], Any] | None:
        """How a picture of a sequence becomes the model's input (N, C), float32; None where the task shows none."""

    def encode(self, examples: Sequence[Any]) -> Encoded:
        """Every example becomes features or is skipped for a named reason."""

    def collate(self, features: Sequence[Features]) -> Batch:
        """Pads to `padded_length` of the longest of these features, never to a fixed length."""

    def padded_length(self, num_tokens: int) -> int:
        """T, the padded length in tokens of a batch whose longest sequence has `num_tokens`."""

    def measure(self, model: Any, features: Sequence[Features], precision: Any) -> dict[str, float]:
        """The metrics of a validation, `loss` and those of `kind.view.logged` among them. `model` is in eval mode."""

    def rank(self, metrics: Mapping[str, float]) -> list[float]:
        """A validation as a list to compare: the checkpoint with the greatest is the best."""

    def probe(self, features: Sequence[Features]) -> dict[str, Any]:
        """A few inputs, to hold models against each other by their outputs."""

    def probe_outputs(self, model: Any, inputs: Mapping[str, Any]) -> Any:
        """Outputs of `model` on a probe, fp32, on the CPU, of a size that can be kept on disk."""

    def write_reader(self, folder: Path) -> None:
        """Writes what reads for the model, its tokenizer and whatever else, into a folder that is there."""

    def settings(self) -> dict[str, Any]:
        """Fields of the manifest, beside name and max_length, from which `TaskKind.restore` makes the task again."""

    def load_base(self, section: Any, seed: int) -> Any:
        """The pretrained model (a BaseModel) that this model section names; a new head's values by the seed."""

    def check_data(self, corpus: Any, encoded: Mapping[str, Encoded]) -> list[Finding]:
        """Findings of its own pre-flight, with tokenizer and features at hand, beside the checks of preflight/."""

    def check_model(self, model: Any) -> list[Finding]:
        """Findings on what the model to be trained, still on the CPU, cannot learn."""

    def finish(self, model: Any, validation: Sequence[Features] | None, precision: Any) -> Task:
        """Called once after the last step, before the model is saved: may change the model, and gives the task to use
        from then on. validation: features of that split."""

    def refuse_unknown(self, corpus: Any, split: str) -> None:
        """Raises DataError where a split cannot be scored with what this task knows."""

    def score(self, trained: Any, examples: Sequence[Any], settings: Any) -> dict[str, Any]:
        """eval_results.json's `num_examples`, `metrics` and what the view shows of a split.

        trained: a Trained, LOADED or MERGED before. settings: the recipe's generation section.
        """

    def ready(self, trained: Any, settings: Any, seed: int) -> Any:
        """The trained model as what people call: an object with the methods of `TaskKind.ABILITIES`."""


class Records(Protocol):
    """Which records a task learns from, and how it reads what they are labelled with."""

    @property
    def formats(self) -> Sequence[str]:
        """Names of the formats that make such records."""

    @property
    def needs_writer(self) -> bool:
        """Whether only a model that writes text after text learns from them."""

    @property
    def row_by_row(self) -> bool:
        """Whether `settle` judges each row by itself: then it is asked about the rest where some could not be read."""

    @property
    def is_default(self) -> bool:
        """Whether records of its formats mean this task where no other one suits them."""

    @property
    def unit(self) -> str:
        """What a row asks about, in messages: `text`, `question`."""

    @property
    def loses(self) -> str:
        """What happens to a sequence that is too long: it `loses ...`."""

    def uses(self, form: str) -> Sequence[str]:
        """Settings of the recipe's data section that mean something to this task and not to every one."""

    def suits(self, examples: Sequence[Any], config: Any) -> str | None:
        """Why `task: auto` should mean this task, by the training split's raw labels; None where it should not."""

    def accept(self, example: Any, config: Any) -> Any:
        """The example with its label as this task reads it. Raises DataError; the caller names the source."""

    def settle(self, splits: dict[str, list[Any]], named: Sequence[str] | None, config: Any) -> Settled:
        """Names labels and takes out what cannot be scored, in place.

        named: the names that the data set itself gives to its class indices, where it has such.
        """

    def to_dataset(self, corpus: Any, features: Mapping[str, Sequence[Features]], split: str) -> Any:
        """An encoded split as a data set of the `datasets` library."""


@dataclass(frozen=True)
class Settled:
    """What became of the splits: names of classes in index order, what is said about it, and what is wrong."""

    label_names: list[str]
    notes: list[Finding] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


class TaskKind(Protocol):
    """tasks/: how a task comes to be, and what it is to people. The file defines `KIND`, an object with these."""

    @property
    def noun(self) -> str:
        """What its models are, in messages: `a classifier`."""

    @property
    def peft_type(self) -> str:
        """What peft calls such a task in an adapter's file."""

    @property
    def abilities(self) -> Sequence[str]:
        """What its trained models can do: `predict`, `write`."""

    @property
    def has_head(self) -> bool:
        """Whether its models have a head of their own, which can be trained alone."""

    @property
    def default_length(self) -> int:
        """The longest sequence in tokens where the recipe names none: attention's cost grows with its square."""

    @property
    def records(self) -> Records:
        """The records that such tasks learn from."""

    @property
    def view(self) -> Any:
        """A View of report/: what the report, the terminal and `lorafy compare` show."""

    def claims(self, source: Any) -> bool:
        """Whether a model as it comes (a Source) is of this kind."""

    def make(self, config: Any, corpus: Any, source: Any) -> Task:
        """The task of a recipe. source: the model's folder, opened. Raises ModelError."""

    def restore(self, manifest: Any, source: Any) -> Task:
        """The task of what was trained. source: the folder of what was trained, opened; its base's config."""

    def of_model(self, source: Any) -> Task:
        """The task of a model as it comes."""

    def of_adapter(self, folder: Path, source: Any) -> Task:
        """The task of another tool's adapter on a base."""

    def check_examples(self, corpus: Any) -> list[Finding]:
        """Findings of its own pre-flight on the examples, before any tokenizer, beside the checks of preflight/."""

    def probe_examples(self) -> list[Any]:
        """Some inputs for a model that brings no probe."""


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
    needs_head: bool = False
    """Whether it trains nothing but a head, and so nothing at all in a model without one."""
    merges: bool = False
    """Whether `merge` does something."""
    compare_order: int | None = None
    """Its place among the methods that `lorafy compare` trains; None: it is not one of them."""

    def attach(self, model: Any, request: Attachment) -> Attached:
        """Freezes and adds parameters. Trainable ones are fp32."""
        ...

    def parameter_groups(self, model: Any) -> list[ParameterGroup]:
        """All that is trained, each group with its factor on the learning rate."""
        return [ParameterGroup([parameter for parameter in model.parameters() if parameter.requires_grad])]

    def after_update(self, model: Any, step: int) -> None:
        """Called behind each update, while the gradients are still there. step: counted from 1."""
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

    def as_base(self, model: Any, head: Sequence[str], load_base: Callable[[], Any]) -> AbstractContextManager[Any]:
        """A model that computes as the base does, as far as that can differ: under the trained head, unless the head is
        what was trained. load_base: loads the base again, as ready as `model` is."""
        ...


@dataclass(frozen=True)
class Attachment:
    """What a method is told of the model and of the run.

    head: names of modules beside the base. base_name: how the adapter's file names its base. task_type: peft's.
    num_steps: optimizer steps of the whole run. parts: a ChosenParts of models/; None: the model is of one part.
    """

    config: AdapterSection
    head: Sequence[str]
    base_name: str
    task_type: str
    num_steps: int
    parts: Any = None

    def trains(self, name: str) -> bool:
        """Whether a module or parameter is of a part that is trained. What is of another one has to stay frozen."""
        return self.parts is None or self.parts.trains(name)


@dataclass(frozen=True)
class Attached:
    """The model to train, and the layers that got something, for the table of what matched."""

    model: Any
    targets: Sequence[Any] = ()


@dataclass(frozen=True)
class ParameterGroup:
    """Trained parameters, and the factor on the learning rate that is theirs."""

    parameters: list[Any]
    lr_scale: float = 1.0


class Tracker(Protocol):
    """trackers/: where metrics go. The file defines `open_tracker(run, resume_step) -> Tracker`."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Writes one record: `step`, `split` (train or validation) and numbers."""

    def close(self) -> None:
        """Called once, at the end of the run or where it is interrupted."""
