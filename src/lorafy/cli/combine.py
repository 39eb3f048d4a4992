"""lorafy combine"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .arguments import AsJson, Overrides, messages, print_json
from .evaluate import print_rows
from .results import exit_unless_verified, print_verification


def combine(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="a recipe with adapters: {NAME: RUN, NAME: RUN}")],
    weights: Annotated[str, typer.Option("--weights", help="how much of each: sentiment=0.5,topic=0.5")],
    output: Annotated[Path, typer.Option("--output", help="a new folder for the adapter")],
    overrides: Overrides = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="cat: the exact sum, ranks add up; svd: the exact sum, brought to --rank; linear, ties, dare_linear, "
            "dare_ties, magnitude_prune: on A and B, of equal ranks; these with _svd: on B A",
        ),
    ] = "cat",
    density: Annotated[
        float | None,
        typer.Option("--density", help="ties, dare, magnitude_prune: the share of values kept; default: 0.5"),
    ] = None,
    rank: Annotated[
        int | None, typer.Option("--rank", help="svd: the rank of the sum; default: the highest of the parts'")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add up adapters of one task on one base as a new one, check it, and score it beside its parts.

    Scored on the recipe's data. A head is averaged by the weights. run.seed decides what dare draws.
    """
    from ..api import combine

    result = combine(recipe, weights, output, method=method, density=density, rank=rank, overrides=overrides or [])
    print_combination(result, as_json)
    if as_json:
        print_json(result)
    exit_unless_verified(result["verification"])


def print_combination(result: dict[str, Any], as_json: bool) -> None:
    """How it was made, the checks, and the parts beside the sum."""
    from rich.text import Text

    console = messages(as_json)
    sum_of = " + ".join(f"{weight:g} {name}" for name, weight in result["weights"].items())
    how = [f"{key} {result[key]:g}" for key in ("density", "rank", "seed") if result[key] is not None]
    console.print(Text(f"{sum_of} by {', '.join([result['method'], *how])}.", "bold"))
    if result["head"]:
        console.print(Text(f"Averaged by the weights, for it was trained whole: {', '.join(result['head'])}."))
    print_verification(console, result["verification"])
    if result["evaluation"] is None:
        console.print("Not evaluated: the recipe has no data. Give some: data.test=FILE", style="yellow")
    else:
        print_rows(console, result["evaluation"])
    console.print(f"The combined adapter lies in {result['output']}", highlight=False)
