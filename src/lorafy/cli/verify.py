"""lorafy verify"""

from __future__ import annotations

import typer

from .arguments import AsJson, Model, messages, print_json
from .results import print_verification


def verify(model: Model, as_json: AsJson = False) -> None:
    """Reload, merge and compare again, from disk alone."""
    from ..api import verify

    result = verify(model)
    print_verification(messages(as_json), result)
    if as_json:
        print_json(result)
    if not result["passed"]:
        raise typer.Exit(1)
