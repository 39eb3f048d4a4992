"""Arguments that several verbs share, and the one way to print JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

Recipe = Annotated[Path, typer.Argument(metavar="RECIPE", help="a recipe (.yaml), or a run directory")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="a run directory, an adapter folder, or a model")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[section.key=value ...]", help="settings over the recipe's")
]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object on stdout, everything else on stderr")]

PIPE_WIDTH = 120
"""A pipe has no width; tables need one."""


def messages(as_json: bool = False) -> Console:
    """Where people read: stdout, or stderr while stdout carries JSON."""
    stream = sys.stderr if as_json else sys.stdout
    return Console(stderr=as_json, soft_wrap=True, width=None if stream.isatty() else PIPE_WIDTH)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))
