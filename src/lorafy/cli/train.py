"""lorafy train"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .arguments import AsJson, Recipe, messages, print_json, settings
from .results import exit_unless_verified, print_results

if TYPE_CHECKING:
    from rich.console import Console

    from ..api import Run


Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RECIPE ...] [section.key=value ...]",
        help="more recipes over the same base; settings over the recipes', in flat names too: lora_r=8, or --lora_r 8",
        callback=settings,
    ),
]


def train(
    recipe: Recipe,
    overrides: Words = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue a run that was stopped")] = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune, evaluate, verify what lies on disk, draw the report.

    More recipes may follow the first: over one base, which is loaded once, they are trained in turn. Settings hold for
    all of them.
    """
    from ..api import is_main_process, train, train_all
    from ..workflows.train_several import require_several

    console = messages(as_json)
    others = [word for word in overrides or [] if is_recipe(word)]
    own = [word for word in overrides or [] if not is_recipe(word)]
    if others:
        require_several([str(recipe), *others], resume=resume)
        runs = train_all([recipe, *others], own, console=console)
    else:
        runs = [train(recipe, own, resume=resume, console=console)]
    if not is_main_process():
        return
    for run in runs:
        print_run(console, run, named=bool(others))
    if as_json:
        answers = [answer(run) for run in runs]
        print_json({"runs": answers} if others else answers[0])
    for run in runs:
        exit_unless_verified(run.results["verification"])


def is_recipe(word: str) -> bool:
    """Whether a word behind the first recipe is another one, and no setting."""
    return "=" not in word and (Path(word).suffix.lower() in (".yaml", ".yml") or Path(word).is_dir())


def answer(run: Run) -> dict[str, Any]:
    return {"run": str(run.path), "summary": run.summary, "results": run.results}


def print_run(console: Console, run: Run, *, named: bool) -> None:
    """What came out, and where it lies. named: it is one of several."""
    from rich.text import Text

    if named:
        console.print(Text(f"\n{run.path}", "bold"))
    print_results(console, run.results)
    directory = run.directory
    console.print(f"Everything lies in {run.path}", highlight=False)
    console.print(f"  {directory.trained}   what was trained", highlight=False)
    console.print(f"  {directory.report}   the report: open it in a browser", highlight=False)
