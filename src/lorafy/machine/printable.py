"""Texts of others on a terminal: what a file, a model or a label says is shown, and obeyed by nothing."""

from __future__ import annotations

import json
import re
from typing import Any

MARK = "\N{REPLACEMENT CHARACTER}"
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Codes that move the cursor, colour, name the window, fill the clipboard (C0, DEL, C1), those that turn the order of
letters around, and halves of characters, which no stream can write. Tabs and line ends are texts' own."""


def printable(text: str) -> str:
    """The text with a mark for every code that would steer a terminal."""
    return STEERING.sub(MARK, text.replace("\r\n", "\n"))


def json_text(value: Any) -> str:
    """The value as JSON that steers no terminal: the codes stand there as \\uXXXX, so the value is unchanged."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return STEERING.sub(lambda code: f"\\u{ord(code.group()):04x}", text)
