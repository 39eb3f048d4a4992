"""What a verb says before the work: the data, what pre-flight found, the model, what LoRA is put on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..machine.environment import processor_name
from ..machine.printable import printable
from ..metrics.numbers import duration, size
from ..models.parts import ChosenParts
from ..models.precision import Precision
from ..objectives import TOKENS
from ..pictures.opening import short
from ..report.verdict import best_value
from ..report.view import View
from ..run_directory import RunDirectory
from ..types import IGNORE_INDEX, Features, Finding
from .build import BuiltModel
from .prepare import Prepared

SHOWN_LABELS = 6
STYLES = {"note": "dim", "warning": "yellow"}


def announce_run(
    console: Console, run: RunDirectory, prepared: Prepared, built: BuiltModel, precision: Precision
) -> None:
    """Says where the run is written, what it learns from, and which model it trains."""
    console.print(Text.assemble(("Run", "bold"), f" {run.path}"), soft_wrap=True)
    announce_data(console, prepared)
    announce_model(console, prepared, built, precision)


def announce_data(console: Console, prepared: Prepared) -> None:
    """Prints rows, labels or targets, and tokens of each split; then what pre-flight found."""
    in_tokens = prepared.task.objective.reads == TOKENS
    what = "answer tokens" if in_tokens else "labels"
    table = Table("data", "rows", what, "tokens: median", "longest", box=None, header_style="bold")
    report = prepared.report()
    for name, split in report["splits"].items():
        labels = ", ".join(f"{label} {count:,}" for label, count in list(split["labels"].items())[:SHOWN_LABELS])
        more = ", ..." if len(split["labels"]) > SHOWN_LABELS else ""
        tokens = report["tokens"][name]
        shown = f"{tokens['targets']:,} of {tokens['total']:,}" if in_tokens else labels + more
        table.add_row(name, f"{split['rows']:,}", Text(printable(shown)), str(tokens["median"]), str(tokens["longest"]))
    console.print(table)
    announce_findings(console, prepared.findings)


def announce_row(console: Console, prepared: Prepared) -> None:
    """Prints a training row, where tokens are the targets, what is trained in colour: nobody has to guess the mask.
    It is the first one, or the first that shows a picture."""
    if prepared.task.objective.reads != TOKENS:
        return
    features = prepared.features["train"]
    feature = next((feature for feature in features if feature.pictures), features[0])
    pictures = "; blue: a picture" if feature.pictures else ""
    head = (f"Row {feature.row} as it is trained", "bold")
    console.print(Text.assemble(head, f" (green: learned; grey: given{pictures})"))
    console.print(trained_text(prepared.task.tokenizer, feature), soft_wrap=True)


def trained_text(tokenizer: Any, feature: Features) -> Text:
    """The sequence's text, its targets green, one blue mark for all tokens of a picture."""
    text, done = Text(), 0
    for placed in feature.pictures:
        _append_words(text, tokenizer, feature, done, placed.start)
        size = f"{placed.columns:,} x {placed.rows:,} tokens"
        text.append(f"[picture {short(placed.picture.name)}, {size}]", "bold blue")
        done = placed.start + placed.num_tokens
    _append_words(text, tokenizer, feature, done, len(feature))
    return text


def _append_words(text: Text, tokenizer: Any, feature: Features, start: int, end: int) -> None:
    """The tokens from `start` to before `end`. Whole stretches are decoded: a Chinese character may be two tokens."""
    stretches = itertools.groupby(
        zip(feature.input_ids[start:end], feature.labels[start:end], strict=True),
        key=lambda pair: pair[1] != IGNORE_INDEX,
    )
    for is_target, pairs in stretches:
        style = "bold green" if is_target else "bright_black"
        text.append(tokenizer.decode([token for token, _ in pairs]), style)


def announce_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Prints a line for each finding, with what to do about it."""
    for finding in findings:
        fix = f" ({finding.fix})" if finding.fix else ""
        console.print(Text(f"{finding.level}: {finding.message}{fix}", STYLES[finding.level]))


def announce_model(console: Console, prepared: Prepared, built: BuiltModel, precision: Precision) -> None:
    """Prints what is trained in which layers and parts, numbers of parameters, device and precision."""
    if built.targets:
        console.print(_target_table(built))
    if built.parts is not None:
        console.print(Text(_parts_line(built.parts, prepared.learning_rate)))
    count = built.parameters
    whole = "full fine-tuning" if built.parts is None else "the model has"
    fewer = f", {built.num_base / count.trainable:,.0f} times fewer than {whole}" if built.targets else ""
    console.print(
        f"Parameters: {built.num_base:,} in the model, {count.total:,} with what is added; trainable "
        f"{count.trainable:,} ({count.share:.2%}{fewer}).",
        highlight=False,
    )
    announce_findings(console, built.findings)
    if built.base.new_parameters:
        names = ", ".join(built.base.head)
        message = f"The head ({names}) is new: {built.base.new_parameters:,} values start at random and are trained."
        console.print(Text(message))
    on_cpu = precision.device.type == "cpu"
    threads = f", {torch.get_num_threads()} threads" if on_cpu else ""
    name = processor_name() if on_cpu else torch.cuda.get_device_name() if torch.cuda.is_available() else "GPU"
    console.print(Text(f"Computing in {precision.name} on {name}{threads}."))
    if precision.note:
        console.print(Text(precision.note, "yellow"))


def _target_table(built: BuiltModel) -> Table:
    """What matched: a line for each kind of layer; in a model of several parts, of which part it is."""
    names = [f"{built.method.title} on", "layers", "kind", "inputs -> outputs"]
    table = Table(*names, *(["part"] if built.parts else []), box=None, header_style="bold")
    for group in built.targets:
        shape = f"{group.in_features:,} -> {group.out_features:,}"
        table.add_row(Text(group.name), str(group.count), group.kind, shape, *([group.part] if built.parts else []))
    return table


def _parts_line(parts: ChosenParts, learning_rate: float) -> str:
    """Which parts are trained and which are not; the peak learning rate of each where they differ from the recipe's."""
    rates = {part: f" (learning rate {learning_rate * factor:g})" for part, factor in parts.factors.items()}
    trained = ", ".join(f"{part}{rates[part] if parts.has_rates else ''}" for part in parts.factors)
    return f"Trained: {trained}; frozen: {', '.join(parts.frozen) or 'nothing'}."


def announce_trained(console: Console, summary: Mapping[str, Any], view: View) -> None:
    """Prints how long the training took, which step is kept, its size on disk and the peak of memory."""
    best = "the last step's weights are kept (nothing was validated)"
    if summary["best_step"] is not None:
        best = f"the best weights are kept: step {summary['best_step']}, validation {best_value(view, dict(summary))}"
    early = ", stopped early" if summary["stopped_early"] else ""
    share = summary["fast_steps"] / summary["num_steps"]
    console.print(
        f"Trained {summary['num_steps']:,} steps in {duration(summary['seconds'])}{early}, {share:.0%} of them on the "
        f"fast path; {best}.",
        highlight=False,
    )
    console.print(
        f"On disk: {size(summary['bytes_on_disk'])}; peak memory: {size(summary['peak_memory_bytes'])}.",
        highlight=False,
    )
