"""The command line: one small file a verb. A verb parses, calls the API, prints, and returns.

Heavy imports stand inside the verbs, so that `lorafy --help` imports no torch.
"""

from __future__ import annotations

import sys
from inspect import signature
from typing import Annotated

import typer

from ..machine.printable import printable
from ..types import Interrupted, UserError
from .arguments import WITH_OVERRIDES
from .chat import chat
from .combine import combine
from .compare import compare
from .config import config
from .demo import demo
from .doctor import doctor
from .evaluate import evaluate
from .generate import generate
from .merge import merge
from .plan import plan
from .predict import predict
from .prepare import prepare
from .train import train
from .verify import verify

app = typer.Typer(
    name="lorafy",
    help="LoRA fine-tuning that is never silently wrong. Start with: lorafy demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich in a help costs half of its time
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"lorafy {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="show the version and leave")
    ] = False,
) -> None:
    """LoRA fine-tuning that is never silently wrong. Start with: lorafy demo"""


VERBS = (
    demo, doctor, prepare, plan, train, evaluate, predict, generate, chat, compare, combine, merge, verify, config,
)  # fmt: skip

for verb in VERBS:
    app.command(context_settings=WITH_OVERRIDES if "overrides" in signature(verb).parameters else None)(verb)


def main() -> None:
    """Exit codes: 0 done, 2 the user's mistake, 130 and 143 stopped by a signal, 1 (with a traceback) ours."""
    for stream in (sys.stdout, sys.stderr):
        # Windows' consoles may be gbk or cp1252; a pipe there is too.
        stream.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    try:
        app()
    except UserError as error:
        count = len(error.problems)
        typer.secho(f"{count} problem{'s' if count > 1 else ''}:", fg=typer.colors.RED, bold=True, err=True)
        for problem in error.problems:
            typer.echo(printable(f"  {problem}"), err=True)
        sys.exit(2)
    except Interrupted as stop:
        typer.echo(printable(str(stop)), err=True)
        sys.exit(128 + stop.signal_number)
