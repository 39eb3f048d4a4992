"""The field's well-known flat names, such as `lora_r: 8` at the top of a recipe: one table maps them onto the tree."""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..types import Problem

PER_DEVICE, ACCUMULATION = "per_device_train_batch_size", "gradient_accumulation_steps"
BATCH_NAMES = {PER_DEVICE, ACCUMULATION}
"""Two names for one batch size: the only ones that decide the same key together."""

PER_DEVICE_DEFAULT = 8
"""per_device_train_batch_size where a recipe does not give it: transformers.TrainingArguments' default."""


def _same(value: Any) -> tuple[Any, ...]:
    return (value,)


def _dtype(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, str):
        return (value,)
    name = value.removeprefix("torch.")
    return ({"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}.get(name, name),)


def _quantise(value: Any) -> tuple[Any, ...]:
    if value is None:
        return (None,)
    forms: dict[float | None, str] = {4: "nf4", 8: "int8"}
    bits = _number(value)
    if bits not in forms:
        raise ValueError(f"should be 4 or 8, but it is {value!r}; remove it for a base that is not quantised")
    return (forms[bits],)


def _run_directory(value: Any) -> tuple[Any, ...]:
    """A flat recipe's output_dir is the run itself."""
    return (str(Path(value).parent), Path(value).name) if isinstance(value, str) else (value, None)


def _warmup_steps(value: Any) -> tuple[Any, ...]:
    number = _number(value)
    if number is not None and not number.is_integer():
        raise ValueError(f"should be a whole number, but it is {value!r}; a share of all steps is warmup_ratio")
    return (value,)


def _warmup_ratio(value: Any) -> tuple[Any, ...]:
    number = _number(value)
    if number is not None and number >= 1:  # train.warmup would read it as a number of steps
        raise ValueError(f"should be a share below 1, but it is {value!r}; a number of steps is warmup_steps")
    return (value,)


@dataclass(frozen=True, slots=True)
class FlatName:
    """A flat name. `keys` are what it decides in the tree; `values` gives one value for each, or a ValueError `what;
    fix`."""

    keys: tuple[str, ...]
    note: str = ""
    values: Callable[[Any], tuple[Any, ...]] = _same


FLAT_NAMES = {
    "model_name_or_path": FlatName(("model.path",)),
    "torch_dtype": FlatName(("model.dtype",), "fp16, bf16, fp32 and torch.float16 are understood too", _dtype),
    "quantization_bit": FlatName(("model.quantise",), "4 is nf4, 8 is int8", _quantise),
    "output_dir": FlatName(
        ("run.output_dir", "run.name"), "the run's own folder: ./runs/first is run.name first in ./runs", _run_directory
    ),
    "seed": FlatName(("run.seed",)),
    "train_file": FlatName(("data.train",), "default: data/train.json beside the recipe"),
    "validation_file": FlatName(("data.validation",), "default: data/validation.json beside the recipe, if it exists"),
    "test_file": FlatName(("data.test",)),
    "max_seq_length": FlatName(("data.max_length",)),
    "cutoff_len": FlatName(("data.max_length",)),
    "lora_r": FlatName(("adapter.r",)),
    "lora_alpha": FlatName(("adapter.alpha",)),
    "lora_dropout": FlatName(("adapter.dropout",)),
    "target_modules": FlatName(("adapter.target_modules",)),
    "num_train_epochs": FlatName(("train.num_epochs",)),
    "max_steps": FlatName(("train.max_steps",)),
    PER_DEVICE: FlatName(
        ("train.micro_batch_size", "train.batch_size"),
        f"train.batch_size is {PER_DEVICE} x {ACCUMULATION} x processes",
    ),
    ACCUMULATION: FlatName(
        ("train.batch_size", "train.micro_batch_size"),
        f"as above; alone it multiplies {PER_DEVICE_DEFAULT}, and micro-batches are planned",
    ),
    "learning_rate": FlatName(("train.learning_rate",)),
    "lr_scheduler_type": FlatName(("train.schedule",)),
    "warmup_steps": FlatName(("train.warmup",), "a whole number", _warmup_steps),
    "warmup_ratio": FlatName(("train.warmup",), "a share of all steps, below 1", _warmup_ratio),
    "weight_decay": FlatName(("train.weight_decay",)),
    "max_grad_norm": FlatName(("train.max_grad_norm",)),
    "logging_steps": FlatName(("train.log_every",)),
    "eval_steps": FlatName(("train.evaluate_every",)),
    "save_steps": FlatName(("train.save_every",)),
    "save_total_limit": FlatName(("train.keep_checkpoints",)),
    "lora_model_path": FlatName(("generation.model",)),
    "max_new_tokens": FlatName(("generation.max_new_tokens",)),
    "temperature": FlatName(("generation.temperature",)),
    "top_p": FlatName(("generation.top_p",)),
    "repetition_penalty": FlatName(("generation.repetition_penalty",)),
}


def is_flat(tree: Mapping[Any, Any]) -> bool:
    return any(name in tree for name in FLAT_NAMES)


def keys_of(name: str) -> tuple[str, ...]:
    """The keys of the tree that a flat name decides; a tree's name decides itself."""
    return FLAT_NAMES[name].keys if name in FLAT_NAMES else (name,)


def override_name(override: str) -> str:
    return override.partition("=")[0].strip()


def expand(tree: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], list[Problem]]:
    """The tree without flat names; for each key that one of them decided, that name; and what is wrong with them."""
    copied = copy.deepcopy(dict(tree))
    problems = conflicts(copied)
    spelt, wrong = settle(copied, FLAT_NAMES)
    return copied, spelt, [*problems, *wrong]


def conflicts(tree: Mapping[str, Any]) -> list[Problem]:
    """Settings that a recipe gives under two names."""
    flat = [name for name in FLAT_NAMES if name in tree]
    decided = dict.fromkeys(key for name in flat for key in keys_of(name))
    return list(_rivals([*flat, *(key for key in decided if _holds(tree, key))]))


def override_conflicts(overrides: Sequence[str]) -> list[Problem]:
    """Settings that the overrides give under two names."""
    return list(_rivals(sorted(map(override_name, overrides), key=lambda name: name not in FLAT_NAMES)))


def _rivals(names: Sequence[str]) -> Iterator[Problem]:
    for one, other in itertools.combinations(dict.fromkeys(names), 2):
        if not {one, other} <= BATCH_NAMES and set(keys_of(one)) & set(keys_of(other)):
            yield Problem(one, f"{one} and {other} are the same setting: give one")


def settle(tree: dict[str, Any], names: Iterable[str]) -> tuple[dict[str, str], list[Problem]]:
    """Moves these flat names to their places in the tree. Gives the name that decided each key, and wrong values."""
    given = {name: tree.pop(name) for name in names if name in tree}
    spelt: dict[str, str] = {}
    problems = []
    for name in [name for name in given if name not in BATCH_NAMES]:
        try:
            values = FLAT_NAMES[name].values(given[name])
        except ValueError as error:
            message, _, fix = str(error).partition("; ")
            problems.append(Problem(f"{name} ({keys_of(name)[0]})", message, fix))
            continue
        for key, value in zip(keys_of(name), values, strict=True):
            put(tree, key, value)
            spelt[key] = name
    for key, name, value in _batch({name: given[name] for name in BATCH_NAMES if given.get(name) is not None}):
        put(tree, key, value)
        spelt[key] = name
    return spelt, problems


def _batch(given: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Key, the name that decides it, and its value. What is no count goes to the tree as it is, to be refused there."""
    if PER_DEVICE in given:
        yield "train.micro_batch_size", PER_DEVICE, given[PER_DEVICE]
    per_device, accumulation = _count(given.get(PER_DEVICE, PER_DEVICE_DEFAULT)), _count(given.get(ACCUMULATION, 1))
    if accumulation is None:
        yield "train.batch_size", ACCUMULATION, given[ACCUMULATION]
    elif per_device is not None and given:
        # The flat names count on one process, train.batch_size over all of them. Launchers (torchrun, accelerate)
        # tell their number so; the processes have not met yet when the recipe is read.
        processes = int(os.environ.get("WORLD_SIZE", 1))
        name = ACCUMULATION if ACCUMULATION in given else PER_DEVICE
        yield "train.batch_size", name, per_device * accumulation * processes


def override_flat(tree: dict[str, Any], name: str, value: Any) -> Problem | None:
    """Sets a flat name over whatever decided the same before, in either spelling."""
    for other in touched(tree, name):
        if not {name, other} <= BATCH_NAMES:
            del tree[other]
    tree[name] = value
    if name in BATCH_NAMES:  # stays flat until the tree is complete: the other of the two may still come
        for key in keys_of(name):
            _remove(tree, key)
        return None
    _, problems = settle(tree, [name])
    return problems[0] if problems else None


def touched(tree: Mapping[str, Any], name: str) -> list[str]:
    """The tree's flat names that decide the setting or section `name`, or a part of it."""
    paths = {f"{key}." for key in keys_of(name)}
    return [
        flat
        for flat in FLAT_NAMES
        if flat in tree
        and any(f"{key}.".startswith(path) or path.startswith(f"{key}.") for key in keys_of(flat) for path in paths)
    ]


def put(tree: dict[str, Any], path: str, value: Any) -> str | None:
    """Sets a dotted key, in place. Gives the name of what holds a value where a section belongs, and then sets nothing.

    A section that is not there, or empty, is made.
    """
    *parents, last = path.split(".")
    node: Any = tree
    for key in parents:
        if node.get(key) is None:
            node[key] = {}
        node = node[key]
        if not isinstance(node, dict):
            return key
    node[last] = value
    return None


def _holds(tree: Mapping[str, Any], path: str) -> bool:
    section, _, key = path.partition(".")
    return isinstance(tree.get(section), dict) and key in tree[section]


def _remove(tree: dict[str, Any], path: str) -> None:
    section, _, key = path.partition(".")
    if _holds(tree, path):
        del tree[section][key]


def _number(value: Any) -> float | None:
    """YAML reads 5e-4 as text. None: the schema says what is wrong."""
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _count(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number.is_integer() and number >= 1 else None
