"""What became of a run, in one sentence or two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..metrics import numbers
from .view import View


@dataclass(frozen=True, slots=True)
class Verdict:
    """A run's verdict. `kind` is good, bad (a check failed) or open (something is still to be done, or nothing was
    gained)."""

    kind: str
    text: str
    detail: str = ""


def verdict(
    view: View,
    summary: dict[str, Any],
    results: dict[str, Any],
    compare_rows: list[dict[str, Any]],
    lines: list[dict[str, Any]],
) -> Verdict:
    """The verdict on a run, by whichever of its files are there; an empty one is not."""
    if results:
        return evaluated(view, results)
    if compare_rows:
        num_seeds = max(len(row.get("seeds", [])) for row in compare_rows)
        seeds = f"by the same {num_seeds} seeds" if num_seeds > 1 else "and seed"
        return Verdict("good", f"{compared(compare_rows)} compared on the same data {seeds}.")
    if summary:
        return trained(view, summary)
    if lines:
        step = numbers.count(max(line["step"] for line in lines))
        return Verdict("open", f"Training has not finished: the last logged step is {step}.")
    return Verdict("open", "Training has not started.")


def evaluated(view: View, results: dict[str, Any]) -> Verdict:
    """The verdict on results: a failed check comes first, then whether anything was gained."""
    checks = (results.get("verification") or {}).get("checks", [])
    failed = [check["name"] for check in checks if not check["passed"]]
    score = view.said(results)
    if failed:
        text = f"{score}; but {len(failed)} of {len(checks)} checks failed: {', '.join(failed)}"
        return Verdict("bad", text.replace("_", " "), "Do not use this model before it is clear why.")
    detail = view.detail(results)
    if checks:
        return Verdict("good" if view.gained(results) else "open", f"{score}; {all_passed(len(checks))}", detail)
    return Verdict("open", f"{score}; no check was made", detail)


def compared(rows: list[dict[str, Any]]) -> str:
    """`2 methods and the untrained base model were`"""
    methods = [row for row in rows if row.get("method") != "base"]
    if len(methods) == len(rows):
        return f"{len(rows)} methods were"
    return f"{len(methods)} method{'s' if len(methods) > 1 else ''} and the untrained base model were"


def all_passed(num_checks: int) -> str:
    """`all 3 checks passed`"""
    return {1: "the check passed", 2: "both checks passed"}.get(num_checks, f"all {num_checks} checks passed")


def trained(view: View, summary: dict[str, Any]) -> Verdict:
    """The verdict before an evaluation: how long the training took, and its best validation."""
    text = f"Training {summary.get('status', 'finished')}"
    if summary.get("num_steps") is not None:
        text += f" after {numbers.count(summary['num_steps'])} steps"
    if summary.get("seconds") is not None:
        text += f" and {numbers.duration(summary['seconds'])}"
    if summary.get("best_value") is not None:
        text += f"; best validation {best_value(view, summary)} at step {summary.get('best_step')}"
    return Verdict("open", f"{text}.", "It was not evaluated yet.")


def best_value(view: View, summary: dict[str, Any]) -> str:
    """`accuracy 97.0 %`: what chose the checkpoint."""
    key = summary.get("best_metric") or "value"
    metric = view.metric(key)
    if metric is None:
        return f"{key.replace('_', ' ')} {numbers.figure(summary['best_value'])}"
    return f"{metric.title} {metric.write(summary['best_value'])}"
