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
    as_json: AsJson = False,
) -> None:
    """Write base + adapter as one transformers model, and check it. The only setting: model.trust_remote_code=true."""
    from ..api import merge

    result = merge(model, output, overrides or [])
    console = messages(as_json)
    print_verification(console, result["verification"])
    console.print(f"The merged model lies in {output}", highlight=False)
    if as_json:
        print_json(result)
    exit_unless_verified(result["verification"])
