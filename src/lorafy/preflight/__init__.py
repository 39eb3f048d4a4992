"""Checks before the first step. One file a check; each returns findings, none prints.

`run_checks` calls every file of this folder: `check(corpus) -> list[Finding]` on the examples, or
`check_encoded(encoded, max_length, corpus, data) -> list[Finding]` on what the tokenizer made of them. What one
task alone wants checked stands here too, under another name, and the task calls it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..config.schema import DataSection
from ..data.corpus import Corpus
from ..plugins import load_plugin, plugin_names
from ..types import DataError, Encoded, Finding, Problem


def check_corpus(corpus: Corpus, own: Sequence[Finding]) -> list[Finding]:
    """Every finding on the examples, with the task's own. Raises DataError with all those that are errors."""
    return _raise_errors([*own, *(finding for check in _functions("check") for finding in check(corpus))])


def check_encoded(
    encoded: Mapping[str, Encoded], max_length: int, corpus: Corpus, data: DataSection, own: Sequence[Finding]
) -> list[Finding]:
    """Every finding on the encoded examples, with the task's own. Raises DataError with all those that are errors."""
    checks = _functions("check_encoded")
    found = [finding for check in checks for finding in check(encoded, max_length, corpus, data)]
    return _raise_errors([*found, *own])


def _functions(name: str) -> list:
    modules = [load_plugin("preflight", stem) for stem in plugin_names("preflight")]
    return [vars(module)[name] for module in modules if name in vars(module)]


def _raise_errors(findings: list[Finding]) -> list[Finding]:
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        raise DataError([Problem(f"data ({error.check})", error.message, error.fix) for error in errors])
    return findings
