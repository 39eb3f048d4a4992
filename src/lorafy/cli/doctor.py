"""`lorafy doctor`: is this machine ready, and if not, what to do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from ..workflows.doctor import Check

STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def doctor(
    json_output: Annotated[bool, typer.Option("--json", help="print one JSON object on stdout")] = False,
) -> None:
    """Check this machine: packages, processor, memory, GPU, disk, hub."""
    from dataclasses import asdict

    from ..machine.console import PlainConsole
    from ..machine.environment import describe_environment
    from ..workflows.doctor import run_checks

    console = PlainConsole(stderr=json_output)
    with console.status("looking at this machine"):
        checks = run_checks()
    print_checks(console, checks)
    failed = any(check.status == "error" for check in checks)
    if json_output:
        report = {
            "ready": not failed,
            "checks": [asdict(check) for check in checks],
            "environment": describe_environment(),
        }
        typer.echo(json.dumps(report, ensure_ascii=True, allow_nan=False))
    if failed:
        raise typer.Exit(2)


def print_checks(console: Console, checks: list[Check]) -> None:
    """A table, then what to do about each row that is not ok; ASCII only, for consoles that are not UTF-8."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    for check in checks:
        table.add_row(check.name, Text(check.status, STYLES[check.status]), Text(check.found))
    console.print(table)
    for check in checks:
        if check.fix is not None:
            first, *commands = check.fix.split("\n")
            console.print(Text.assemble((f"{check.name}: ", STYLES[check.status]), first))
            for command in commands:
                console.print(Text(f"    {command}"))
    console.print(Text(verdict(checks), "bold"))


def verdict(checks: list[Check]) -> str:
    errors = sum(check.status == "error" for check in checks)
    warnings = sum(check.status == "warning" for check in checks)
    if errors:
        return f"\nNot ready: {errors} {'problem' if errors == 1 else 'problems'} to solve first."
    if any(check.name == "minilm" and check.status != "ok" for check in checks):
        return "\nReady to train on your own models."
    if warnings:
        return f"\nReady, with {warnings} {'remark' if warnings == 1 else 'remarks'}: try lorafy demo"
    return "\nEverything is ready: try lorafy demo"
