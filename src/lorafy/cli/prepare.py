"""lorafy prepare"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .arguments import AsJson, Overrides, Recipe, messages, print_json


def prepare(
    recipe: Recipe,
    overrides: Overrides = None,
    output: Annotated[Path | None, typer.Option("--output", help="write the encoded splits to this new folder")] = None,
    as_json: AsJson = False,
) -> None:
    """Load, split and encode the data, and say what pre-flight finds. Trains nothing."""
    from ..api import prepare
    from ..workflows.announce import announce_data

    console = messages(as_json)
    prepared = prepare(recipe, overrides or [], output)
    announce_data(console, prepared)
    if output:
        console.print(f"Written to {output}: datasets.load_from_disk({str(output)!r})", highlight=False)
    if as_json:
        print_json(prepared.report() | {"output": None if output is None else str(output)})
