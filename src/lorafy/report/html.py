"""The report: one HTML file that opens anywhere, without a network and without scripts."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..run_directory import RunDirectory, read_json, read_jsonl, write_text
from . import language, numbers
from .compare_plot import by_quality
from .plots import Drawn, draw_plots, read_if_there
from .verdict import verdict

MAX_MISTAKES = 25
MAX_TEXT = 600

CAPTIONS = {
    "loss": "Loss per target: blue on the train split (smoothed where a thin line shows every logged "
    "step), orange on the validation split.",
    "accuracy": "Share of right answers. On the train split it is measured during the step, with dropout.",
    "learning_rate": "Learning rate of each logged step.",
    "hardware": "The training process, sampled while it ran. 100 % processor is one core at work.",
    "confusion_matrix": "Rows are labels, columns are predictions: right answers in blue, mistakes in "
    "orange, coloured by their share of the row.",
    "compare": "The same data, seed and evaluation for every method.",
}
MAX_NARROW_LABELS = 4


def write_report(run: RunDirectory, drawn: Drawn | None = None) -> Path:
    """Writes run.report from the files that are there; draws the plots first unless they are handed in."""
    drawn = draw_plots(run) if drawn is None else drawn
    write_text(run.report, page(run, drawn))
    return run.report


def page(run: RunDirectory, drawn: Drawn) -> str:
    summary, results = read_if_there(run.summary), read_if_there(run.eval_results)
    preflight = read_if_there(run.preflight)
    rows = by_quality(read_if_there(run.compare_results).get("rows", []))
    lines = read_jsonl(run.metrics)
    is_language_model = language.is_language_model(summary, results, *rows, lines=lines)
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
        verdict=verdict(summary, results, rows, lines),
        cards=(language.quality_cards(results) if is_language_model else quality_cards(results)) + cards(summary),
        checks=results.get("verification", {}).get("checks", []),
        per_class=class_rows(results),
        plots=plots(drawn, len(results.get("labels", [])), CAPTIONS | (language.CAPTIONS if is_language_model else {})),
        notes=drawn.notes,
        mistakes=worst_mistakes(results),
        num_mistakes=len(results.get("mistakes", [])),
        preflight=preflight,
        token_rows=list(preflight.get("tokens", {}).items()),
        more_tokens=language.more_tokens(preflight.get("tokens", {})) if is_language_model else [],
        compare_rows=rows,
        language=language if is_language_model else None,
        results=results,
        trained=bool(summary),
        evaluated=bool(results),
        config=run.config.read_text(encoding="utf-8") if run.config.is_file() else None,
        environment_rows=flat(read_json(run.environment)) if run.environment.is_file() else [],
    )


def quality_cards(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What it is, the figure, and a small line below it."""
    metrics, found = results.get("metrics", {}), []
    if metrics.get("accuracy") is not None:
        found.append(("accuracy", numbers.percent(metrics["accuracy"]), spread(metrics.get("accuracy_interval"))))
    elif metrics.get("loss") is not None:
        found.append(("loss", numbers.figure(metrics["loss"]), "mean per target"))
    if metrics.get("f1_macro") is not None:
        found.append(("macro F1", numbers.percent(metrics["f1_macro"]), spread(metrics.get("f1_macro_interval"))))
    return found


def cards(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What the training cost, in the same form."""
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


def spread(bounds: list[float] | None) -> str:
    return f"95 % interval {numbers.interval(bounds)}" if bounds else ""


def steps(summary: dict[str, Any]) -> str:
    if summary.get("num_steps") is None:
        return ""
    early = ", stopped early" if summary.get("stopped_early") else ""
    return f"{numbers.count(summary['num_steps'])} steps{early}"


def machine(summary: dict[str, Any]) -> str:
    facts = [summary.get("device_name") or summary.get("device"), summary.get("dtype")]
    return ", ".join(fact for fact in facts if fact)


def class_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    per_class = results.get("metrics", {}).get("per_class") or {}
    names = [name for name in results.get("labels", []) if name in per_class]
    return [{"index": index, "name": name, **per_class[name]} for index, name in enumerate(names)]


def plots(drawn: Drawn, num_labels: int, captions: dict[str, str]) -> list[dict[str, Any]]:
    wide = {"compare"} if num_labels <= MAX_NARROW_LABELS else {"compare", "confusion_matrix"}
    return [
        {
            "name": path.stem,
            "wide": path.stem in wide,
            "title": path.stem.replace("_", " "),
            "caption": captions[path.stem],
            "data": base64.b64encode(path.read_bytes()).decode("ascii"),
        }
        for path in drawn.paths
    ]


def worst_mistakes(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The mistakes that the model was surest of."""
    mistakes = sorted(results.get("mistakes", []), key=lambda mistake: mistake["probability"], reverse=True)
    return [
        {
            **mistake,
            "text": shortened(mistake["text"]),
            "text_pair": shortened(mistake.get("text_pair")),
            "source": Path(mistake.get("source", "")).name,
        }
        for mistake in mistakes[:MAX_MISTAKES]
    ]


def shortened(text: str | None) -> str | None:
    return text if text is None or len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} …"


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
    """The path as a shell's argument, on Windows too."""
    text = str(path)
    return f'"{text}"' if any(character in text for character in " ()&;") else text
