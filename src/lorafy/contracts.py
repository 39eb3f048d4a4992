"""The seams, as protocols. A plug-in is one file (or folder) in a seam's folder; its name is that in YAML.

The seam adapters/: adapter_contract.py. How plug-ins are found: plugins.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    from .config.schema import Columns
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

    def load_base(self, section: Any, seed: int, shelf: Any = None) -> Any:
        """The pretrained model (a BaseModel) that this model section names; a new head's values by the seed. shelf: a
        Shelf of models/, where its weights may be already; None: they are this model's alone."""

    def check_data(self, corpus: Any, encoded: Mapping[str, Encoded]) -> list[Finding]:
        """Findings of its own pre-flight, with tokenizer and features at hand, beside the checks of preflight/."""

    def unlearned_tokens(self, model: Any, features: Sequence[Features]) -> list[int]:
        """Tokens that the base model has to write for these, and cannot mean: pretraining never showed them."""

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


class Tracker(Protocol):
    """trackers/: where metrics go. The file defines `open_tracker(run, resume_step) -> Tracker`."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Writes one record: `step`, `split` (train or validation) and numbers."""

    def close(self) -> None:
        """Called once, at the end of the run or where it is interrupted."""
