"""lorafy verify"""

from __future__ import annotations

from .arguments import AsJson, Model, Overrides, messages, print_json
from .results import exit_unless_verified, print_verification


def verify(model: Model, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Reload, merge and compare again, from disk alone. The only setting: model.trust_remote_code=true."""
    from ..api import verify

    result = verify(model, overrides or [])
    print_verification(messages(as_json), result)
    if as_json:
        print_json(result)
    exit_unless_verified(result)
