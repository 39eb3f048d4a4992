"""Several adapters of one base made into one: a weighted sum, written, verified, and scored beside its parts."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..config import RunConfig
from ..inference.trained import Trained, outputs_on_probe
from ..machine.environment import package_version
from ..models.trained_files import Manifest, save_trained
from ..models.weighted import EXACT, METHODS, OF_PRODUCTS, PRUNING, RANDOM, Part, combine_parts, misfits, read_part
from ..plugins import foreign_method, load_method, plugin_names
from ..run_directory import write_atomically
from ..tasks import read_corpus
from ..types import ConfigError, ModelError, Problem, UserError
from .adapters import AdaptersRecipe, load_adapters, take_adapters
from .evaluate import probe_circumstances, score, verify
from .load import load_trained

SUM = "= combined"
"""The sum's name beside those of its parts."""

DENSITY = 0.5
"""The share of values that pruning methods keep where nothing is said. TIES (Yadav et al. 2023, section 4): 20 % of a
full fine-tuning's changes; of LoRA's, which are few, more is kept here."""


def combine(
    recipe: Path | str | Mapping[str, Any],
    weights: Mapping[str, float] | str,
    output: Path | str,
    *,
    method: str = EXACT,
    density: float | None = None,
    rank: int | None = None,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes the weighted sum of adapters that a recipe names as one adapter, and verifies it: {"output", "weights",
    "method", "verification", "evaluation" (of each part and of the sum, where the recipe has data), ...}.

    weights: by name, or as `a=0.5,b=0.5`. method, density, rank: peft's `add_weighted_adapter`'s combination_type,
    density and svd_rank. What was trained whole (a head) is averaged by the weights. Raises UserError with every
    mistake, before anything is written.
    """
    output = Path(output)
    found, _, trust = take_adapters(recipe, overrides)
    text = weights if isinstance(weights, str) else ",".join(f"{name}={weight}" for name, weight in weights.items())
    chosen, problems = read_weights(text, found)
    problems += check_settings(method, density, rank)
    if output.exists():
        problems.append(Problem(str(output), "is there already", "choose another --output"))
    if problems:
        raise ConfigError(problems)
    return _combine(found, chosen, method, output, density=density, rank=rank, trust=trust)


def read_weights(text: str, recipe: AdaptersRecipe) -> tuple[dict[str, float], list[Problem]]:
    """`a=0.5,b=0.5` as numbers by name, and what is wrong with it."""
    weights: dict[str, float] = {}
    problems = []
    for entry in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = (piece.strip() for piece in entry.partition("="))
        number = _number(value)
        if not equals or number is None:
            problems.append(Problem("--weights", f"'{entry}' is no NAME=NUMBER", "write sentiment=0.5,topic=0.5"))
        elif name not in recipe.names:
            near = difflib.get_close_matches(name, recipe.names, n=1, cutoff=0.6)
            start = f"did you mean {near[0]}? " if near else ""
            fix = f"{start}its adapters: {', '.join(recipe.names)}"
            problems.append(Problem("--weights", f"{recipe.where} has no adapter '{name}'", fix))
        elif name in weights:
            problems.append(Problem("--weights", f"{name} stands there more than once", "give it one weight"))
        elif number == 0:
            problems.append(Problem("--weights", f"{name} has weight 0, which leaves it out", "remove it"))
        else:
            weights[name] = number
    if not problems and len(weights) < 2:
        given = "one adapter" if weights else "no adapter"
        problems.append(Problem("--weights", f"names {given}, and a sum needs two", "write NAME=0.5,NAME=0.5"))
    return weights, problems


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def check_settings(method: str, density: float | None, rank: int | None) -> list[Problem]:
    """What is wrong with the way of adding up."""
    if method not in METHODS:
        near = difflib.get_close_matches(method, METHODS, n=1, cutoff=0.5)
        start = f"did you mean {near[0]}? " if near else ""
        return [Problem("--method", f"there is no '{method}'", f"{start}there are {', '.join(METHODS)}")]
    problems = []
    if density is not None and not method.startswith(PRUNING):
        problems.append(Problem("--density", f"no effect with {method}, which keeps every value", "remove it"))
    elif density is not None and not 0 < density < 1:
        message = f"should be a share of the values between 0 and 1, not {density:g}"
        problems.append(Problem("--density", message, "0.5 keeps half of them"))
    if rank is not None and method not in OF_PRODUCTS:
        fix = f"remove it, or use one of {', '.join(OF_PRODUCTS)}"
        problems.append(Problem("--rank", f"no effect with {method}", fix))
    elif rank is not None and rank < 1:
        problems.append(Problem("--rank", f"should be 1 or more, not {rank}"))
    return problems


def _combine(
    recipe: AdaptersRecipe,
    weights: Mapping[str, float],
    method: str,
    output: Path,
    *,
    density: float | None,
    rank: int | None,
    trust: bool,
) -> dict[str, Any]:
    """Writes `output`: {"output", "weights", "method", "seed", "verification", "evaluation"}, the last one None where
    the recipe has no data. Raises UserError with every mistake, before anything is written."""
    if density is None and method.startswith(PRUNING):
        density = DENSITY
    found = load_adapters(recipe, list(weights), trust=trust)
    parts = _parts(found, weights)
    problems = [*_other_tasks(found), *misfits(parts, method)]
    first = next(iter(found.values()))
    if problems:
        raise ConfigError(problems)
    if recipe.has_data:
        _require_scorable(recipe.config, first)
    seed = recipe.config.run.seed
    if rank is None and method in OF_PRODUCTS:
        rank = max(max(part.ranks.values(), default=1) for part in parts)
    try:
        write_atomically(output, lambda folder: _write(first, parts, method, density, rank, seed, folder))
    except ValueError as error:  # peft's, of adapters that it cannot add up
        raise ModelError(Problem("adapters", f"peft cannot add these up: {error}", "use --adapter instead")) from error
    verification = verify(load_trained(output, trust=trust, base=recipe.base))
    evaluation = None
    if recipe.has_data:
        folders = {name: recipe.path(name) for name in weights} | {SUM: output}
        evaluation = {
            name: score(load_trained(folder, trust=trust, base=recipe.base), recipe.config, None)
            for name, folder in folders.items()
        }
    return {
        "output": str(output),
        "weights": dict(weights),
        "method": method,
        "density": density,
        "rank": rank,
        "seed": seed if method.startswith(RANDOM) else None,
        "head": sorted({_module_of(name) for name in parts[0].whole}),
        "verification": verification,
        "evaluation": evaluation,
    }


def _module_of(tensor: str) -> str:
    return tensor.removeprefix("base_model.model.").rpartition(".")[0].removesuffix(".token_adapter")


def _parts(found: Mapping[str, Trained], weights: Mapping[str, float]) -> list[Part]:
    parts, problems = [], []
    for name, trained in found.items():
        assert trained.folder is not None and trained.method is not None, "a recipe's adapters were trained"
        try:
            parts.append(read_part(name, trained.folder, weights[name], trained.method.weights))
        except UserError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return parts


def _other_tasks(found: Mapping[str, Trained]) -> list[Problem]:
    """Adapters that learned something else than the first one."""
    first, *others = found
    here, problems = found[first].task, []
    for name in others:
        task = found[name].task
        if task.name != here.name:
            message = f"it is {task.kind.noun}, {first} is {here.kind.noun}"
        elif task.settings() != here.settings():
            message = f"it was trained for other answers than {first}: {_difference(task.settings(), here.settings())}"
        else:
            continue
        fix = "only adapters of one task and the same labels make one; use them beside each other with --adapter"
        problems.append(Problem(f"adapters.{name}", message, fix))
    return problems


def _difference(here: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    key = next(key for key in {**here, **there} if here.get(key) != there.get(key))
    return f"{key} {here.get(key)}, not {there.get(key)}"


def _require_scorable(config: RunConfig, trained: Trained) -> None:
    """Raises UserError for data that its task cannot be scored on."""
    corpus = read_corpus(config.model_copy(update={"task": trained.task.name}))
    trained.task.refuse_unknown(corpus, corpus.scored_split)


def _write(
    first: Trained, parts: Sequence[Part], method: str, density: float | None, rank: int | None, seed: int, folder: Path
) -> None:
    task, base, precision = first.task, first.load_base(), first.precision
    made = folder.with_name("made")
    model = combine_parts(base.model, parts, method, density=density, rank=rank, seed=seed, folder=made)
    inputs = first.probe()
    with torch.inference_mode():
        logits = outputs_on_probe(task, model.to(precision.device), inputs, precision)
    manifest = Manifest(
        lorafy_version=str(package_version("lorafy")),
        task=task.name,
        method=_method_of(made),
        model=first.section.model_dump(mode="json"),
        base_fingerprint=base.fingerprint,
        max_length=task.max_length,
        seed=seed,
        head=base.head,
        probe=probe_circumstances(precision),
        **task.settings(),
    )

    def move(target: Path) -> None:
        for path in made.iterdir():
            path.replace(target / path.name)

    weights = load_method(manifest.method).weights
    save_trained(move, weights, task.write_reader, manifest, inputs | {"logits": logits}, folder)


def _method_of(folder: Path) -> str:
    """The name of the method that loads such a folder."""
    method = foreign_method(folder)
    return next(name for name in plugin_names("adapters") if load_method(name) is method)
