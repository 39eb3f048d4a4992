"""The console for people. It shows names, labels and texts as they are: none of them is markup, none steers it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from .printable import printable


class PlainConsole(Console):
    """rich's, where a text means itself: `[/a]` and `:smile:` too. Style is given beside a text, never within it."""

    def __init__(
        self,
        *,
        file: TextIO | None = None,
        stderr: bool = False,
        quiet: bool = False,
        soft_wrap: bool = False,
        width: int | None = None,
    ):
        super().__init__(
            file=file, stderr=stderr, quiet=quiet, soft_wrap=soft_wrap, width=width, markup=False, emoji=False
        )

    def render_str(self, text: str, **how: Any) -> Text:
        """A string, such as a table's cell, clean before its width is measured."""
        return super().render_str(printable(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Everything that is printed comes through here; rich's own control segments pass."""
        for segment in super().render(renderable, options):
            clean = segment if segment.control else Segment(printable(segment.text), segment.style)
            yield clean
