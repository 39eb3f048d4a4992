"""A picture made small, as text that a page can hold: it opens without the file."""

from __future__ import annotations

import base64
import io

from ..types import Picture
from .opening import open_picture

LONGEST_SIDE = 160
QUALITY = 80
"""Of 95: 3 to 8 KiB for a photograph of this size."""
PREFIX = "data:image/jpeg;base64,"


def thumbnail(picture: Picture) -> str:
    """A data URL of a jpeg, its longest side LONGEST_SIDE pixels at most; a smaller picture stays as large as it is.

    Raises DataError where the picture cannot be read any more.
    """
    image = open_picture(picture)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=QUALITY)
    return PREFIX + base64.b64encode(content.getvalue()).decode("ascii")
