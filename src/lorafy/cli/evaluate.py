"""lorafy evaluate"""

from __future__ import annotations

from .arguments import AsJson, Model, Overrides, messages, print_json
from .results import exit_unless_verified, print_results


def evaluate(model: Model, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Load a run from disk, merge, verify, and score it.

    On the test split, else validation. Writes RUN/eval_results.json.
    """
    from ..api import evaluate

    results = evaluate(model, overrides or [], console=messages(as_json))
    if as_json:
        print_json(results)
    else:
        print_results(messages(), results)
    exit_unless_verified(results["verification"])
