"""How figures and names are written for people, in one place: the page, the plots and the command line use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ABSENT = "–"


def percent(share: float | None, digits: int = 1) -> str:
    """A share: 0.975 -> `97.5 %`. What only rounds to 0 or 100 says so: `100.0 %` means every single one."""
    if share is None:
        return ABSENT
    step = 10.0**-digits
    if share > 0 and 100 * share < step / 2:
        return f"<{step:.{digits}f} %"
    if share < 1 and 100 * share >= 100 - step / 2:
        return f">{100 - step:.{digits}f} %"
    return f"{100 * share:.{digits}f} %"


def interval(bounds: Sequence[float] | None) -> str:
    """Both ends of an interval, as shares: [0.951, 0.988] -> `95.1 to 98.8 %`."""
    if bounds is None:
        return ABSENT
    return f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f} %"


def perplexity(value: float | None) -> str:
    """A perplexity: 6.7512 -> `6.75`, 24.08 -> `24.1`, 51234.5 -> `51,234`."""
    if value is None:
        return ABSENT
    if round(value, 1) >= 100:
        return count(value)
    return f"{value:.1f}" if round(value, 2) >= 10 else f"{value:.2f}"


def score(value: float | None) -> str:
    """BLEU and what else goes to 100: 21.34 -> `21.3`."""
    return ABSENT if value is None else f"{value:,.1f}"


def size(num_bytes: float | None) -> str:
    """Bytes: 2516582 -> `2.4 MiB`."""
    if num_bytes is None:
        return ABSENT
    if num_bytes < 1024:
        return f"{num_bytes:.0f} B"
    value = num_bytes / 1024
    for unit in ("KiB", "MiB", "GiB"):
        if round(value) < 1024:
            return f"{three_digits(value)} {unit}"
        value /= 1024
    return f"{three_digits(value)} TiB"


def duration(seconds: float | None) -> str:
    """Seconds: 0.84 -> `0.84 s`, 192 -> `3 min 12 s`, 7500 -> `2 h 05 min`."""
    if seconds is None:
        return ABSENT
    if seconds < 59.95:
        return f"{three_digits(seconds)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def count(number: float | None) -> str:
    """A whole number: 23000000 -> `23,000,000`."""
    return ABSENT if number is None else f"{number:,.0f}"


def short_count(number: float | None) -> str:
    """A whole number, short: 23000000 -> `23.0 M`; up to 9,999 every digit is written."""
    if number is None:
        return ABSENT
    if number < 10_000:
        return count(number)
    value = float(number)
    for unit in ("k", "M", "G"):
        value /= 1000
        if round(value) < 1000:
            return f"{three_digits(value)} {unit}"
    return f"{three_digits(value / 1000)} T"


def three_digits(value: float) -> str:
    """A number of 0 or more: 0.843 -> `0.84`, 8.43 -> `8.4`, 84.3 -> `84.3`, 843.2 -> `843`."""
    if value == 0 or round(value, 1) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if round(value, 2) >= 1 else f"{value:.2f}"


def figure(value: Any) -> str:
    """A figure of a kind not known here, with up to four digits; other values as they are."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return count(value) if isinstance(value, int) else str(value)
