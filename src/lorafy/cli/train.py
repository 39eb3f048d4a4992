"""lorafy train"""

from __future__ import annotations

from typing import Annotated

import typer

from .arguments import AsJson, Overrides, Recipe, messages, print_json
from .results import exit_unless_verified, print_results


def train(
    recipe: Recipe,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue a run that was stopped")] = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune, evaluate, verify what lies on disk, draw the report."""
    from ..api import is_main_process, train

    console = messages(as_json)
    run = train(recipe, overrides or [], resume=resume, console=console)
    if not is_main_process():
        return
    print_results(console, run.results)
    directory = run.directory
    console.print(f"Everything lies in {run.path}", highlight=False)
    console.print(f"  {directory.trained}   what was trained", highlight=False)
    console.print(f"  {directory.report}   the report: open it in a browser", highlight=False)
    if as_json:
        print_json({"run": str(run.path), "summary": run.summary, "results": run.results})
    exit_unless_verified(run.results["verification"])
