"""lorafy verify"""

from __future__ import annotations

from .arguments import AsJson, Model, messages, print_json
from .results import exit_unless_verified, print_verification


def verify(model: Model, as_json: AsJson = False) -> None:
    """Reload, merge and compare again, from disk alone."""
    from ..api import verify

    result = verify(model)
    print_verification(messages(as_json), result)
    if as_json:
        print_json(result)
    exit_unless_verified(result)
