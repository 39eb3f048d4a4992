"""lorafy merge"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .arguments import AsJson, Model, Overrides, messages, print_json
from .results import exit_unless_verified, print_verification


def merge(
    model: Model,
    output: Annotated[Path, typer.Option("--output", help="a new folder for the merged model")],
    overrides: Overrides = None,
    into: Annotated[
        str | None,
        typer.Option(help="of an adapter on a quantised base: dequantised (what it was trained on) or original"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write base + adapter as one transformers model, and check it. The only setting: model.trust_remote_code=true."""
    from rich.text import Text

    from ..api import merge

    result = merge(model, output, overrides or [], into=into)
    console = messages(as_json)
    print_verification(console, result["verification"])
    if result.get("note"):
        console.print(Text(f"{result['note']}."))
    console.print(f"The merged model lies in {output}", highlight=False)
    if as_json:
        print_json(result)
    exit_unless_verified(result["verification"])
