"""Arguments that several verbs share, and the one way to print JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..machine.printable import json_text

if TYPE_CHECKING:
    from rich.console import Console

WITH_OVERRIDES = {"ignore_unknown_options": True}
"""Context settings of a verb with Overrides: what is none of its options, such as --lora_r 8, comes among them."""


def _options(context: typer.Context) -> list[str]:
    own = [name for parameter in context.command.params for name in parameter.opts if name.startswith("-")]
    return [*own, *context.help_option_names]


def settings(context: typer.Context, words: list[str] | None) -> list[str] | None:
    """The words behind the recipe as `name=value`."""
    from ..config.load import normalise_overrides

    return words and normalise_overrides(words, _options(context))


def _no_option(context: typer.Context, argument: Path | str) -> Path | str:
    """An unknown option may stand where RECIPE or MODEL belongs."""
    from ..config.load import normalise_overrides
    from ..types import ConfigError, Problem

    word = str(argument)
    if word.startswith("--"):
        normalise_overrides([word, "0"], _options(context))  # raises for a misspelt option
        raise ConfigError(Problem(word, "a setting stands behind the recipe or model", "move it to the end"))
    return argument


Recipe = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="a recipe (.yaml), or a run directory", callback=_no_option)
]
Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="a run directory, an adapter folder, or a model", callback=_no_option),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[section.key=value ...]",
        help="settings over the recipe's; the well-known flat names work too: lora_r=8, or --lora_r 8",
        callback=settings,
    ),
]
Adapter = Annotated[
    str | None, typer.Option("--adapter", help="of a recipe with adapters: {NAME: RUN}, the one to use")
]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object on stdout, everything else on stderr")]

PIPE_WIDTH = 120
"""A pipe has no width; tables need one."""


def messages(as_json: bool = False) -> Console:
    """The console for people: stdout, or stderr while stdout carries JSON."""
    from ..machine.console import PlainConsole

    stream = sys.stderr if as_json else sys.stdout
    return PlainConsole(stderr=as_json, soft_wrap=True, width=None if stream.isatty() else PIPE_WIDTH)


def print_json(value: Any) -> None:
    typer.echo(json_text(value))
