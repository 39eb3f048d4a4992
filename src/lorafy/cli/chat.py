"""lorafy chat"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .arguments import Model, Overrides, messages
from .generate import Base, System

if TYPE_CHECKING:
    from rich.console import Console

    from ..inference.chat import Chat

HELP = """\
  /base          the original model answers, the last question first
  /tuned         the trained model answers, the last question first
  /system TEXT   another system message (without TEXT: the trained one, or none) and a new conversation
  /reset         a new conversation
  exit           leave (also Ctrl-D); Ctrl-C stops an answer"""
LEAVE = ("exit", "quit", "/exit", "/quit")


def chat(model: Model, overrides: Overrides = None, system: System = None, base: Base = False) -> None:
    """Talk with a model, tuned and original.

    It streams and remembers; /base and /tuned answer the same question. `exit` leaves.
    """
    from ..api import load_able
    from ..types import ConfigError, Problem

    console = messages()
    language_model = load_able(model, "write", overrides or [])
    if base and not language_model.has_base:
        message = "no effect: this is the original model, and there is no other"
        raise ConfigError(Problem("--base", message, "remove it, or name a run or an adapter"))
    conversation = language_model.chat(system=system, base=base)
    name = "the original model" if base or not language_model.has_base else "the trained model"
    console.print(f"Talking with {name} of {model}. Type exit to leave, /help for more.", highlight=False)
    while True:
        line = _read()
        if line is None or line.lower() in LEAVE:
            return
        if line:
            _obey(console, conversation, line, language_model.has_base)


def _read() -> str | None:
    """A line from the keyboard, None at its end. A pipe sees no prompt."""
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except (EOFError, KeyboardInterrupt):
        return None


def _obey(console: Console, conversation: Chat, line: str, has_base: bool) -> None:
    command, _, rest = line.partition(" ")
    if command in ("/base", "/tuned"):
        if not has_base:
            console.print("There is only the original model here.", style="yellow")
            return
        conversation.use_base = command == "/base"
        console.print("The original model:" if conversation.use_base else "The trained model:", style="dim")
        _answer(console, conversation, None)
    elif command == "/system":
        conversation.system = rest.strip() or None
        conversation.reset()
        console.print("A new conversation.", style="dim")
    elif command == "/reset":
        conversation.reset()
        console.print("A new conversation.", style="dim")
    elif command == "/help":
        console.print(HELP, highlight=False, markup=False)
    elif command.startswith("/"):
        console.print(f"There is no {command}. These are there:\n{HELP}", highlight=False, markup=False)
    else:
        _answer(console, conversation, line)


def _answer(console: Console, conversation: Chat, question: str | None) -> None:
    """Streams an answer: to `question`, or again to the last one."""
    from ..types import UserError

    def show(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    forgotten = conversation.num_forgotten
    try:
        answer = conversation.ask_again(show) if question is None else conversation.ask(question, show)
    except KeyboardInterrupt:
        console.print("\n(stopped; this answer is not remembered)", style="yellow")
        return
    except UserError as error:
        console.print(str(error), style="yellow", markup=False)
        return
    if answer is None:
        return
    sys.stdout.write("\n")
    if answer.remark:
        console.print(f"({answer.remark})", style="yellow", highlight=False)
    if conversation.num_forgotten > forgotten:
        console.print("(the oldest turns no longer fit, and are forgotten)", style="yellow")
