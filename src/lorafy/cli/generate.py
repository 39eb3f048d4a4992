"""lorafy generate"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..machine.printable import printable
from .arguments import Adapter, AsJson, Model, Overrides, messages, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from ..inference.generate import Answer
    from ..types import Message

Base = Annotated[bool, typer.Option("--base", help="ask the original model, without what was learned")]
System = Annotated[str | None, typer.Option("--system", help="a system message")]


def generate(
    model: Model,
    overrides: Overrides = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="one question")] = None,
    images: Annotated[
        list[str] | None,
        typer.Option("--image", help="a picture of the question, may be repeated: before it, or where it says <image>"),
    ] = None,
    input_file: Annotated[
        Path | None, typer.Option("--input", help="questions: .txt with one a line, csv, tsv, json, jsonl or parquet")
    ] = None,
    output_file: Annotated[Path | None, typer.Option("--output", help="write the answers as .csv or .jsonl")] = None,
    system: System = None,
    compare: Annotated[bool, typer.Option("--compare", help="both answers, the original model's beside")] = False,
    base: Base = False,
    adapter: Adapter = None,
    as_json: AsJson = False,
) -> None:
    """Answer one prompt or a file of them. Settings: generation.max_new_tokens=200, or --max_new_tokens 200."""
    from ..api import load_able
    from ..inference.prompts import answer_records, check_output, read_questions, write_answers
    from ..inference.showing import all_pictures
    from ..types import ConfigError, Problem

    if base and compare:
        raise ConfigError(Problem("--base", "no effect with --compare, which asks both", "remove one of them"))
    check_output(output_file)
    questions = read_questions(prompt, input_file, system, images or [])
    language_model = load_able(model, "write", overrides or [], adapter)
    if not language_model.sees and any(map(all_pictures, questions)):
        option = "--image" if images else "--input"
        message = f"shows pictures, and {model} sees none: it reads text alone"
        raise ConfigError(Problem(option, message, "take them out, or ask a vision-language model"))
    if (compare or base) and not language_model.has_base:
        option = "--compare" if compare else "--base"
        message = "no effect: this is the original model, and there is no other"
        raise ConfigError(Problem(option, message, "remove it, or name a run or an adapter"))
    console = messages(as_json)
    streams = len(questions) == 1 and not compare and not as_json and output_file is None
    if streams:
        answer = language_model.stream(questions[0], lambda text: typer.echo(printable(text), nl=False), base=base)
        typer.echo()
        if answer.remark:
            messages(as_json=True).print(answer.remark, style="yellow", highlight=False)
        return
    voices = {"base": True, "tuned": False} if compare else {"base": True} if base else {"tuned": False}
    answers = {name: language_model.generate(questions, base=is_base) for name, is_base in voices.items()}
    if output_file:
        write_answers(questions, answers, output_file)
        messages(as_json=True).print(f"{len(questions):,} answers written to {output_file}", highlight=False)
    if as_json:
        print_json({"answers": answer_records(questions, answers)})
    elif not output_file:
        print_answers(console, questions, answers)


def print_answers(console: Console, questions: Sequence[Sequence[Message]], answers: dict[str, list[Answer]]) -> None:
    """A block for each question; two voices side by side."""
    from rich.table import Table
    from rich.text import Text

    from ..inference.showing import all_pictures
    from ..pictures.placing import as_written

    for index, question in enumerate(questions):
        console.print(Text(as_written(question[-1]), "bold"))
        for picture in all_pictures(question):
            console.print(Text(f"picture: {picture.name}", "dim"))
        shown = {name: several[index] for name, several in answers.items()}
        if len(shown) == 1:
            (answer,) = shown.values()
            console.print(Text(answer.text))
        else:
            table = Table(*shown, show_lines=True, expand=True)
            table.add_row(*(Text(answer.text) for answer in shown.values()))
            console.print(table)
        for name, answer in shown.items():
            if answer.remark:
                console.print(f"{name}: {answer.remark}", style="yellow", highlight=False)
        console.print()
