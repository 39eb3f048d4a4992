"""The plug-ins are what `lorafy.contracts` asks for: mypy holds each assignment below, pytest that the names are there.

A protocol or a plug-in that is changed alone fails `make check` here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bitfit
import memory
import pytest
import shouted
import yes_no

from lorafy.adapter_contract import AdapterMethod
from lorafy.adapters import adalora, dora, full, loftq, lora, none, olora, pissa
from lorafy.contracts import Format, Objective, Records, Task, TaskKind, TextObjective, Tracker
from lorafy.encoding.pictures import PictureEncoder
from lorafy.formats import chat, completion, labelled, text
from lorafy.objectives.classes import ClassCrossEntropy
from lorafy.objectives.tokens import TokenCrossEntropy
from lorafy.plugins import load_plugin, plugin_names
from lorafy.tasks import causal_lm, classification, multi_label, regression, vision_language
from lorafy.trackers import jsonl, tensorboard

if TYPE_CHECKING:
    from lorafy.run_directory import RunDirectory

KINDS: dict[str, TaskKind] = {
    "causal_lm": causal_lm.KIND,
    "classification": classification.KIND,
    "multi_label": multi_label.KIND,
    "regression": regression.KIND,
    "vision_language": vision_language.KIND,
}
ADDED_KIND: TaskKind = yes_no.KIND

RECORDS: dict[str, Records] = {
    "causal_lm": causal_lm.KIND.records,
    "classification": classification.KIND.records,
    "multi_label": multi_label.KIND.records,
    "regression": regression.KIND.records,
    "vision_language": vision_language.KIND.records,
}
ADDED_RECORDS: Records = yes_no.KIND.records

METHODS: dict[str, AdapterMethod] = {
    "adalora": adalora.METHOD,
    "dora": dora.METHOD,
    "full": full.METHOD,
    "loftq": loftq.METHOD,
    "lora": lora.METHOD,
    "none": none.METHOD,
    "olora": olora.METHOD,
    "pissa": pissa.METHOD,
}
ADDED_METHOD: AdapterMethod = bitfit.METHOD

FORMATS: dict[str, Format] = {"chat": chat, "completion": completion, "labelled": labelled, "text": text}
ADDED_FORMAT: Format = shouted

OBJECTIVES: list[Objective] = [
    TokenCrossEntropy(),
    vision_language.SeenTokenCrossEntropy(),
    ClassCrossEntropy(),
    multi_label.BinaryCrossEntropy(),
    regression.SquaredError(),
    yes_no.Logistic(),
]
TEXT_OBJECTIVES: list[TextObjective] = [
    ClassCrossEntropy(),
    multi_label.BinaryCrossEntropy(),
    regression.SquaredError(),
    yes_no.Logistic(),
]


def tasks(tokenizer: Any, encoder: Any) -> dict[str, Task]:
    """One of each."""
    return {
        "causal_lm": causal_lm.CausalLM(encoder, 300),
        "classification": classification.Classification(tokenizer, ["ham", "spam"], 64),
        "multi_label": multi_label.MultiLabel(tokenizer, ["ham", "spam"], 64),
        "regression": regression.Regression(tokenizer, [], 64),
        "vision_language": vision_language.VisionLanguage(encoder, 300),
        "yes_no": yes_no.YesNo(tokenizer, ["ham", "spam"], 64),
    }


if TYPE_CHECKING:
    # Opening them would write files: these are for mypy alone.
    def trackers(run: RunDirectory) -> list[Tracker]:
        return [jsonl.open_tracker(run, None), tensorboard.open_tracker(run, 1), memory.open_tracker(run, None)]


def members(protocol: type) -> set[str]:
    """Names that a protocol asks for."""
    return {name for name in dir(protocol) if not name.startswith("_")} | set(protocol.__annotations__)


@pytest.mark.parametrize(("seam", "named"), [("tasks", KINDS), ("adapters", METHODS), ("formats", FORMATS)])
def test_every_plug_in_of_a_seam_is_held(seam: str, named: dict[str, Any]) -> None:
    loaded = {name: load_plugin(seam, name) for name in plugin_names(seam)}
    own = [name for name, module in loaded.items() if module.__name__.startswith("lorafy.")]
    assert list(named) == own


def test_what_is_held_is_what_is_loaded() -> None:
    assert all(load_plugin("tasks", name).KIND is kind for name, kind in KINDS.items())
    assert all(load_plugin("adapters", name).METHOD is method for name, method in METHODS.items())
    assert all(load_plugin("formats", name) is module for name, module in FORMATS.items())


@pytest.mark.parametrize(
    ("protocol", "all_of_it"),
    [
        (TaskKind, [*KINDS.values(), ADDED_KIND]),
        (Records, [*RECORDS.values(), ADDED_RECORDS]),
        (AdapterMethod, [*METHODS.values(), ADDED_METHOD]),
        (Format, [*FORMATS.values(), ADDED_FORMAT]),
        (Objective, OBJECTIVES),
        (TextObjective, TEXT_OBJECTIVES),
    ],
)
def test_every_name_is_there(protocol: type, all_of_it: list[Any]) -> None:
    lacking = [(one, name) for one in all_of_it for name in members(protocol) if not hasattr(one, name)]
    assert lacking == []


def test_every_task_has_every_name() -> None:
    class Encoder:
        tokenizer, max_length, pictures = None, 64, PictureEncoder(None, 4_096)

    every = tasks(None, Encoder())
    assert {name: task.name for name, task in every.items()} == {name: name for name in every}
    lacking = [(name, member) for name, task in every.items() for member in members(Task) if not hasattr(task, member)]
    assert lacking == []
    assert all(task.kind is (KINDS | {"yes_no": ADDED_KIND})[name] for name, task in every.items())
