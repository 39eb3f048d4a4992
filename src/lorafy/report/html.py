"""The report: one HTML file that opens anywhere, without a network and without scripts."""

from __future__ import annotations

import base64
import os
import re
import shlex
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..metrics import Metric, numbers
from ..run_directory import RunDirectory, read_json, read_jsonl, write_text
from .compare_plot import by_quality
from .plots import Drawn, draw_plots, read_if_there
from .ranks import rank_sections
from .sections import Cell, Column, Section, Table
from .verdict import verdict
from .view import Picture, View


def write_report(run: RunDirectory, view: View, drawn: Drawn | None = None) -> Path:
    """Writes run.report from the files that are there; draws the plots first unless they are handed in."""
    drawn = draw_plots(run, view) if drawn is None else drawn
    write_text(run.report, page(run, view, drawn))
    return run.report


def page(run: RunDirectory, view: View, drawn: Drawn) -> str:
    """The report's HTML."""
    summary, results = read_if_there(run.summary), read_if_there(run.eval_results)
    preflight = read_if_there(run.preflight)
    rows = by_quality(read_if_there(run.compare_results).get("rows", []), view.compared[0])
    environment = Environment(
        loader=PackageLoader("lorafy.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.globals["n"] = numbers
    return environment.get_template("report.html.jinja").render(
        name=run.path.resolve().name,
        run_argument=quoted(run.path),
        config_argument=quoted(run.config),
        verdict=verdict(view, summary, results, rows, read_jsonl(run.metrics)),
        cards=view.cards(results) + cards(summary),
        checks=(results.get("verification") or {}).get("checks", []),
        sections=[*view.results(results), *rank_sections(results)] if results else [],
        details=view.details(results) if results else [],
        plots=[embedded(picture) for picture in drawn.pictures],
        notes=drawn.notes,
        preflight=preflight,
        token_rows=list(preflight.get("tokens", {}).items()),
        more_tokens=more_tokens(preflight.get("tokens", {})),
        comparison=comparison(view, rows) if rows else [],
        commands=commands(run, view),
        trained=bool(summary),
        evaluated=bool(results),
        config=run.config.read_text(encoding="utf-8") if run.config.is_file() else None,
        environment_rows=flat(read_json(run.environment)) if run.environment.is_file() else [],
    )


def commands(run: RunDirectory, view: View) -> list[tuple[str, str]]:
    """What to do with a trained model: title and command."""
    merge = ("one model without an adapter", "lorafy merge {run} --output DIR")
    return [(title, command.format(run=quoted(run.path))) for title, command in (*view.commands, merge)]


def comparison(view: View, rows: list[dict[str, Any]]) -> list[Section]:
    """Methods side by side: how good they are, what they cost, and what else the task shows."""
    metrics = [m for m in view.compared if any(m.value(row) is not None for row in rows)]
    marks = [m.best([m.value(row) for row in rows]) for m in metrics]
    names = [Cell(row.get("title", row["method"])) for row in rows]
    against = next((row["against"] for row in rows if row.get("difference")), None)
    figures = [
        [
            name,
            *(
                Cell(m.write(m.value(row)), m.interval(row), mark[place])
                for m, mark in zip(metrics, marks, strict=True)
            ),
        ]
        for place, (name, row) in enumerate(zip(names, rows, strict=True))
    ]
    heads = [Column(f"{m.title} {m.arrow}", "number") for m in metrics]
    note = "✓ is the best of a column; below a figure stands its 95 % interval"
    if against is not None:
        heads.insert(1, Column(f"against {against}", "number"))
        for row, cells in zip(rows, figures, strict=True):
            cells.insert(2, difference(metrics[0], row.get("difference")))
        note += (
            ", over the seeds; the difference is taken seed by seed, and where its interval holds 0 there may be none"
        )
    return [
        Table("Methods compared", [Column("method", "name"), *heads], figures, note=note),
        Table(
            "",
            [Column("what it cost", "name"), *COST_COLUMNS],
            [[n, *costs(r)] for n, r in zip(names, rows, strict=True)],
        ),
        *view.of_comparison(rows),
    ]


def difference(metric: Metric, differences: dict[str, Any] | None) -> Cell:
    """How much greater a figure is than the one that it is held against, and the interval."""
    value, bounds = metric.value(differences), metric.bounds(differences)
    if value is None or bounds is None:
        return Cell("")
    return Cell(metric.signed(value), " to ".join(map(metric.signed, bounds)))


COST_COLUMNS = [
    Column(title, "number") for title in ("trained", "share", "learning rate", "peak memory", "time", "on disk")
]


def costs(row: dict[str, Any]) -> list[Cell]:
    """The costs of one method as cells, in the order of COST_COLUMNS."""
    trainable, total = row.get("trainable_parameters"), row.get("total_parameters")
    share = numbers.percent(trainable / total, 2) if trainable is not None and total else numbers.ABSENT
    texts = [
        numbers.count(trainable),
        share,
        numbers.figure(row.get("learning_rate")),
        numbers.size(row.get("peak_memory_bytes")),
        numbers.duration(row.get("seconds")),
        numbers.size(row.get("bytes_on_disk")),
    ]
    return [Cell(text) for text in texts]


def more_tokens(tokens: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Title and key of what preflight.json counts beside the texts' own tokens."""
    columns = [("trained tokens", "targets"), ("skipped", "skipped")]
    return [(title, key) for title, key in columns if any(key in facts for facts in tokens.values())]


def cards(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What the training cost, in the form of `View.cards`: title, figure, and small lines below it."""
    found = []
    trainable, total = summary.get("trainable_parameters"), summary.get("total_parameters")
    if trainable is not None:
        share = f"{numbers.percent(trainable / total, 2)} of {numbers.short_count(total)}" if total else ""
        found.append(("trainable parameters", numbers.short_count(trainable), share))
    if summary.get("seconds") is not None:
        found.append(("training time", numbers.duration(summary["seconds"]), steps(summary)))
    if summary.get("peak_memory_bytes") is not None:
        found.append(("peak memory", numbers.size(summary["peak_memory_bytes"]), machine(summary)))
    if summary.get("bytes_on_disk") is not None:
        found.append(("size on disk", numbers.size(summary["bytes_on_disk"]), "what was trained"))
    return found


def steps(summary: dict[str, Any]) -> str:
    """`300 steps, stopped early`, or nothing."""
    if summary.get("num_steps") is None:
        return ""
    early = ", stopped early" if summary.get("stopped_early") else ""
    return f"{numbers.count(summary['num_steps'])} steps{early}"


def machine(summary: dict[str, Any]) -> str:
    """The device and the dtype: `NVIDIA H100, bfloat16`."""
    facts = [summary.get("device_name") or summary.get("device"), summary.get("dtype")]
    return ", ".join(fact for fact in facts if fact)


def embedded(picture: Picture) -> dict[str, Any]:
    """A picture for the template, its bytes (base64) in the page itself."""
    return {
        "name": picture.path.stem,
        "wide": picture.wide,
        "title": picture.path.stem.replace("_", " "),
        "caption": picture.caption,
        "data": base64.b64encode(picture.path.read_bytes()).decode("ascii"),
    }


def flat(tree: Any, prefix: str = "") -> list[tuple[str, str]]:
    """{"a": {"b": 1}} -> [("a.b", "1")], for facts whose shape is not known here."""
    if not isinstance(tree, dict):
        text = ", ".join(map(numbers.figure, tree)) if isinstance(tree, list) else numbers.figure(tree)
        return [(prefix, text)]
    rows = []
    for key, value in tree.items():
        rows.extend(flat(value, f"{prefix}.{key}" if prefix else str(key)))
    return rows


def quoted(path: Path) -> str:
    """The path as a shell's argument, on Windows too: people copy the command, whatever the folder is called."""
    text = str(path)
    if re.fullmatch(r"[\w@%+=:,./\\~ ()&;-]+", text):
        return f'"{text}"' if any(character in text for character in " ()&;") else text
    # A quote, $ or ` could run a command. No way of quoting holds in both of Windows' shells.
    return "RUN" if os.name == "nt" else shlex.quote(text)
