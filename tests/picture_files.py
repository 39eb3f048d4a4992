"""Pictures for the tests, as the bytes of a file: whole ones, and the ways in which they are broken."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import numpy
from PIL import Image

QUARTERS = {(0, 0): (250, 10, 10), (0, 1): (10, 250, 10), (1, 0): (10, 10, 250), (1, 1): (250, 250, 10)}
"""Row and column of a quarter, and its colour: red and green above blue and yellow."""


def quarters(width: int = 24, height: int = 16, mode: str = "RGB") -> Image.Image:
    """A picture whose four quarters have different colours, so that each way to turn it looks different."""
    pixels = numpy.zeros((height, width, 3), numpy.uint8)
    for (row, column), colour in QUARTERS.items():
        below, right = slice(row * height // 2, None), slice(column * width // 2, None)
        pixels[below, right] = colour
    return Image.fromarray(pixels).convert(mode)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The picture as a file's bytes."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    """An EXIF block that says how the pixels are to be turned."""
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def animated(kind: str = "GIF") -> bytes:
    """Two frames."""
    return saved(quarters(), kind, save_all=True, append_images=[quarters().rotate(180)], duration=100)


def png_of_size(width: int, height: int) -> bytes:
    """The beginning of a png file that claims this size."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 10**6) + b"IDAT"


def truncated(kind: str = "JPEG") -> bytes:
    """A file that opens and ends before its last lines."""
    noise = numpy.random.default_rng(0).integers(0, 255, (64, 96, 3), numpy.uint8)
    whole = saved(Image.fromarray(noise), kind)
    return whole[: len(whole) * 2 // 3]


def in_base64(content: bytes) -> str:
    """The bytes as text."""
    return base64.b64encode(content).decode("ascii")
