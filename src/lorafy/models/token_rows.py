"""Single rows of the embeddings and of the output layer that are trained, and modules that share their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peft.utils.other import EMBEDDING_LAYER_NAMES

from ..types import ModelError, Problem
from .parts import ChosenParts

KEY = "adapter.trainable_token_indices"


def token_tables(model: Any, tokens: Sequence[int]) -> dict[str, list[int]]:
    """The modules that hold a row for each token, by full name, with the rows to train, as peft's config wants them: of
    tied ones the embeddings alone."""
    if not tokens:
        return {}
    names = {id(module): name for name, module in model.named_modules()}
    embeddings, output = model.get_input_embeddings(), model.get_output_embeddings()
    tables = [embeddings] if output is None or output.weight is embeddings.weight else [embeddings, output]
    return {names[id(table)]: list(tokens) for table in tables}


def cannot_train(
    model: Any, tables: Mapping[str, Sequence[int]], whole: Sequence[str], parts: ChosenParts | None
) -> list[Problem]:
    """Why rows of these tables cannot be trained. whole: modules that are trained whole."""
    if not tables:
        return []
    embeddings, output = model.get_input_embeddings(), model.get_output_embeddings()
    rows, tokens = embeddings.weight.shape[0], next(iter(tables.values()))
    problems = [
        Problem(KEY, f"there is no token {token}: the model knows {rows:,}", "they are counted from 0")
        for token in tokens
        if token >= rows
    ]
    if output is not None and output.weight is embeddings.weight and not model.config.tie_word_embeddings:
        message = "its embeddings are its output layer too, but its config.json does not say so, which peft goes by"
        problems.append(Problem(KEY, message, "set it to null"))
    if output is not None and output.bias is not None:
        message = "its output layer has a bias, which peft's trained rows would leave out"
        problems.append(Problem(KEY, message, "set it to null"))
    for name in tables:
        if name in whole:
            problems.append(Problem(KEY, f"adapter.modules_to_save trains {name} whole", "set it to null"))
        if parts is not None and not parts.trains(name):
            problems.append(Problem(KEY, f"{name} is of {parts.parts.of(name)}, which is frozen", "set it to null"))
    return problems


def shares_weights(model: Any, whole: Sequence[str]) -> bool:
    """Whether one of these modules is the embeddings or the output layer of a model that has both in one, so that their
    copies have to be one too. Raises ModelError where peft does not see to it."""
    embeddings, output = model.get_input_embeddings(), model.get_output_embeddings()
    if output is None or output.weight is not embeddings.weight:
        return False
    shared = next((name for name in whole if model.get_submodule(name) in (embeddings, output)), None)
    if shared is None:
        return False
    place = next(name for name, module in model.named_modules() if module is embeddings)
    if place.rpartition(".")[2] not in EMBEDDING_LAYER_NAMES:
        message = f"{shared} is embeddings and output layer in one, of which peft would train a copy that is not"
        fix = "use adapter.trainable_token_indices for single tokens, or adapter.method=full"
        raise ModelError(Problem("adapter.modules_to_save", message, fix))
    return True
