"""What became of a run, in one sentence or two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import numbers
from .language import TASK

A_TENTH = 0.1
"""Of the answers. From here on a fault of theirs is said in the verdict; a rarer one stands in the table."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`kind` is good, bad (a check failed) or open (something is still to be done, or nothing was gained)."""

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
        return Verdict("good", f"{compared(compare_rows)} compared on the same data and seed.")
    if summary:
        return trained(summary)
    if lines:
        step = numbers.count(max(line["step"] for line in lines))
        return Verdict("open", f"Training has not finished: the last logged step is {step}.")
    return Verdict("open", "Training has not started.")


def evaluated(results: dict[str, Any]) -> Verdict:
    checks = results.get("verification", {}).get("checks", [])
    failed = [check["name"] for check in checks if not check["passed"]]
    score = scored(results)
    if failed:
        text = f"{score}; but {len(failed)} of {len(checks)} checks failed: {', '.join(failed)}"
        return Verdict("bad", text.replace("_", " "), "Do not use this model before it is clear why.")
    language = results.get("task") == TASK
    detail = what_training_gained(results) if language else baseline(results["metrics"])
    if checks:
        kind = "open" if language and no_better(results) else "good"
        return Verdict(kind, f"{score}; {all_passed(len(checks))}", detail)
    return Verdict("open", f"{score}; no check was made", detail)


def compared(rows: list[dict[str, Any]]) -> str:
    methods = [row for row in rows if row.get("method") != "base"]
    if len(methods) == len(rows):
        return f"{len(rows)} methods were"
    return f"{len(methods)} method{'s' if len(methods) > 1 else ''} and the untrained base model were"


def all_passed(num_checks: int) -> str:
    return {1: "the check passed", 2: "both checks passed"}.get(num_checks, f"all {num_checks} checks passed")


def scored(results: dict[str, Any]) -> str:
    metrics = results["metrics"]
    where = f"on {numbers.count(results['num_examples'])} {results['split']} examples"
    if metrics.get("perplexity") is None:
        return f"{quality(metrics)} {where}"
    text = f"Perplexity {numbers.perplexity(metrics['perplexity'])} {where}"
    if metrics.get("perplexity_interval"):
        low, high = map(numbers.perplexity, metrics["perplexity_interval"])
        text += f" (95 % interval {low} to {high})"
    base = perplexity_of_base(results)
    return text if base is None else f"{text}, the base model's is {numbers.perplexity(base)}"


def perplexity_of_base(results: dict[str, Any]) -> float | None:
    return (results.get("base") or {}).get("perplexity")


def no_better(results: dict[str, Any]) -> bool:
    tuned, base = results["metrics"].get("perplexity"), perplexity_of_base(results)
    return tuned is not None and base is not None and tuned >= base


def what_training_gained(results: dict[str, Any]) -> str:
    """Of a language model: whether it is better than the base model, and what is wrong with its answers."""
    metrics, base = results["metrics"], results.get("base") or {}
    if metrics.get("perplexity") is None:
        return ""
    said = ["Lower is better."]
    if perplexity_of_base(results) is None:
        said.append("The base model was not measured, so that what training gained is not known.")
    elif no_better(results):
        said = ["That is no better than the untrained base model."]
    elif overlap(metrics.get("perplexity_interval"), base.get("perplexity_interval")):
        said.append("The two intervals overlap: the difference may be chance.")
    answers = metrics.get("generation") or {}
    if (answers.get("looped") or 0.0) >= A_TENTH:
        said.append(f"{numbers.percent(answers['looped'])} of its answers say the same again and again.")
    if answers.get("ended") is not None and 1 - answers["ended"] >= A_TENTH:
        said.append(f"{numbers.percent(1 - answers['ended'])} of its answers did not end by themselves.")
    return " ".join(said)


def overlap(one: list[float] | None, other: list[float] | None) -> bool:
    return bool(one and other and one[0] <= other[1] and other[0] <= one[1])


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
