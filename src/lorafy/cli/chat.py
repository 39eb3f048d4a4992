"""lorafy chat"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from ..machine.printable import printable
from .arguments import Adapter, Model, Overrides, messages
from .generate import Base, System

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from ..inference.chat import Chat
    from ..types import Picture

HELP = """\
  /base          the original model answers, the last question first
  /tuned         the trained model answers, the last question first
  /system TEXT   another system message (without TEXT: the trained one, or none) and a new conversation
  /reset         a new conversation, without the pictures that wait
  /image PATH    show a picture with the next question, to a model that sees (without PATH: which ones wait)
  exit           leave (also Ctrl-D); Ctrl-C stops an answer"""
LEAVE = ("exit", "quit", "/exit", "/quit")


def chat(
    model: Model,
    overrides: Overrides = None,
    system: System = None,
    base: Base = False,
    adapter: Adapter = None,
) -> None:
    """Talk with a model, tuned and original.

    It streams and remembers; /base and /tuned answer the same question. `exit` leaves.
    """
    from ..api import load_able
    from ..types import ConfigError, Problem

    console = messages()
    language_model = load_able(model, "write", overrides or [], adapter)
    if base and not language_model.has_base:
        message = "no effect: this is the original model, and there is no other"
        raise ConfigError(Problem("--base", message, "remove it, or name a run or an adapter"))
    conversation = language_model.chat(system=system, base=base)
    name = "the original model" if base or not language_model.has_base else "the trained model"
    whose = model if adapter is None else f"{model}, adapter {adapter}"
    console.print(f"Talking with {name} of {whose}. Type exit to leave, /help for more.", highlight=False)
    waiting: list[Picture] = []
    while True:
        line = _read()
        if line is None or line.lower() in LEAVE:
            return
        if line:
            _obey(console, conversation, line, language_model.has_base, waiting)


def _read() -> str | None:
    """A line from the keyboard, None at its end. A pipe sees no prompt."""
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except (EOFError, KeyboardInterrupt):
        return None


def _obey(console: Console, conversation: Chat, line: str, has_base: bool, waiting: list[Picture]) -> None:
    """Does what a line says. waiting: the pictures of the next question."""
    command, _, rest = line.partition(" ")
    if command in ("/base", "/tuned"):
        if not has_base:
            console.print("There is only the original model here.", style="yellow")
            return
        conversation.use_base = command == "/base"
        console.print("The original model:" if conversation.use_base else "The trained model:", style="dim")
        _answer(console, conversation, None)
    elif command == "/image":
        _show(console, conversation, rest.strip(), waiting)
    elif command == "/system":
        conversation.system = rest.strip() or None
        conversation.reset()
        waiting.clear()
        console.print("A new conversation.", style="dim")
    elif command == "/reset":
        conversation.reset()
        waiting.clear()
        console.print("A new conversation.", style="dim")
    elif command == "/help":
        console.print(HELP, highlight=False, markup=False)
    elif command.startswith("/"):
        console.print(f"There is no {command}. These are there:\n{HELP}", highlight=False, markup=False)
    elif _answer(console, conversation, line, waiting):
        waiting.clear()


def _show(console: Console, conversation: Chat, path: str, waiting: list[Picture]) -> None:
    """Looks at the picture and lets it wait for the next question; without a path says which ones do."""
    from ..inference.showing import looked_at
    from ..types import UserError

    if not conversation.sees:
        console.print("This model sees no pictures: it reads text alone.", style="yellow")
        return
    try:
        new = looked_at([typed_path(path)], "/image") if path else []
    except UserError as error:
        console.print(str(error), style="yellow", markup=False)
        return
    waiting += new
    for picture in new or waiting:
        size = f"{picture.width:,} x {picture.height:,} pixels"
        console.print(f"{picture.name}, {size}: goes with the next question.", style="dim", highlight=False)
    if not waiting:
        console.print("No picture waits. /image PATH shows one with the next question.", style="dim", highlight=False)


def typed_path(text: str) -> str:
    """The path that is meant where people type it or drop a file on the window: as it is, in quotes, with \\ before its
    spaces; ~ is their own folder."""
    bare = text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
    # Of what no path may be, such as ~nobody or a long data URL, os.path says no where pathlib raises.
    several = [os.path.expanduser(one) for one in (text, bare, re.sub(r"\\(.)", r"\1", bare))]  # noqa: PTH111
    return next((one for one in several if os.path.isfile(one)), several[1])  # noqa: PTH113


def _answer(console: Console, conversation: Chat, question: str | None, pictures: Sequence[Picture] = ()) -> bool:
    """Streams an answer: to `question`, or again to the last one. Whether there is one."""
    from ..types import UserError

    def show(text: str) -> None:
        sys.stdout.write(printable(text))
        sys.stdout.flush()

    forgotten = conversation.num_forgotten
    try:
        answer = conversation.ask_again(show) if question is None else conversation.ask(question, show, pictures)
    except KeyboardInterrupt:
        console.print("\n(stopped; this answer is not remembered)", style="yellow")
        return False
    except UserError as error:
        console.print(str(error), style="yellow", markup=False)
        return False
    if answer is None:
        return False
    sys.stdout.write("\n")
    if answer.remark:
        console.print(f"({answer.remark})", style="yellow", highlight=False)
    if conversation.num_forgotten > forgotten:
        console.print("(the oldest turns no longer fit, and are forgotten)", style="yellow")
    return True
