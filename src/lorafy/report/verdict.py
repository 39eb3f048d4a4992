"""What became of a run, in one sentence or two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import numbers


@dataclass(frozen=True, slots=True)
class Verdict:
    """`kind` is good, bad (a check failed) or open (something is still to be done)."""

    kind: str
    text: str
    detail: str = ""


def verdict(
    summary: dict[str, Any],
    results: dict[str, Any],
    compare_rows: list[dict[str, Any]],
    lines: list[dict[str, Any]],
) -> Verdict:
    if results:
        return evaluated(results)
    if compare_rows:
        return Verdict("good", f"{len(compare_rows)} methods were compared on the same data and seed.")
    if summary:
        return trained(summary)
    if lines:
        step = numbers.count(max(line["step"] for line in lines))
        return Verdict("open", f"Training has not finished: the last logged step is {step}.")
    return Verdict("open", "Training has not started.")


def evaluated(results: dict[str, Any]) -> Verdict:
    checks = results.get("verification", {}).get("checks", [])
    failed = [check["name"] for check in checks if not check["passed"]]
    num_examples, split = numbers.count(results["num_examples"]), results["split"]
    score = f"{quality(results['metrics'])} on {num_examples} {split} examples"
    if failed:
        text = f"{score}; but {len(failed)} of {len(checks)} checks failed: {', '.join(failed)}"
        return Verdict("bad", text.replace("_", " "), "Do not use this model before it is clear why.")
    detail = baseline(results["metrics"])
    if checks:
        return Verdict("good", f"{score}; {all_passed(len(checks))}", detail)
    return Verdict("open", f"{score}; no check was made", detail)


def all_passed(num_checks: int) -> str:
    return {1: "the check passed", 2: "both checks passed"}.get(num_checks, f"all {num_checks} checks passed")


def quality(metrics: dict[str, Any]) -> str:
    if metrics.get("accuracy") is None:
        return f"Loss {numbers.figure(metrics.get('loss'))}"
    text = f"Accuracy {numbers.percent(metrics['accuracy'])}"
    bounds = metrics.get("accuracy_interval")
    return f"{text} (95 % interval {numbers.interval(bounds)})" if bounds else text


def baseline(metrics: dict[str, Any]) -> str:
    majority = metrics.get("majority_accuracy")
    if majority is None or metrics.get("accuracy") is None:
        return ""
    always = f"always answering the most frequent label would reach {numbers.percent(majority)}"
    verb = "For comparison" if metrics["accuracy"] > majority else "That is no better than guessing"
    return f"{verb}: {always}."


def trained(summary: dict[str, Any]) -> Verdict:
    text = f"Training {summary.get('status', 'finished')}"
    if summary.get("num_steps") is not None:
        text += f" after {numbers.count(summary['num_steps'])} steps"
    if summary.get("seconds") is not None:
        text += f" and {numbers.duration(summary['seconds'])}"
    best = summary.get("best_value")
    if best is not None:
        metric = (summary.get("best_metric") or "value").replace("_", " ")
        value = numbers.percent(best) if metric in ("accuracy", "f1 macro") else numbers.figure(best)
        text += f"; best validation {metric} {value} at step {summary.get('best_step')}"
    return Verdict("open", f"{text}.", "It was not evaluated yet.")
