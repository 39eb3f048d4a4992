"""A Picture becomes pixels: RGB, 8 bits, upright. Pillow is imported on first use, so that `lorafy --help` is quick."""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..types import DataError, Picture, Problem

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""Pillow knows more, but some of those run other programs (EPS runs Ghostscript)."""
KINDS = "lorafy reads png, jpg, webp, gif, bmp, tiff, ppm, jp2 and avif"
NO_FILE = "correct the path, or put the file there"
MOST_PIXELS = 178_956_970
"""Twice Pillow's MAX_IMAGE_PIXELS: from there on it refuses a file as a decompression bomb. A quarter of it in GiB."""
MOST_ASPECT = 200
"""The longest side by the shortest: the image processors of Qwen's models refuse what is longer (`smart_resize`)."""
STILL_IN_SEVERAL_FRAMES = "MPO"
"""What Pillow calls a photograph with a depth or brightness map behind it, as telephones write them under .jpg."""
ORIENTATION = 0x0112
"""EXIF's tag: 2 to 8 say how the pixels are to be turned and mirrored."""


def open_picture(picture: Picture) -> Image:
    """The picture in RGB, as a viewer shows it: turned as EXIF says, transparent parts on white.

    Raises DataError naming the picture where it cannot be read, or is not the file that was looked at before.
    """
    content = read_picture(picture)
    if picture.sha256 and picture.sha256 != hashlib.sha256(content).hexdigest():
        raise _wrong(picture, "the file changed since it was looked at", "put the old one back, or start again")
    return decode_picture(picture, content)


def read_picture(picture: Picture) -> bytes:
    """The bytes of its file. Raises DataError where there are none."""
    if picture.data is not None:
        content = picture.data
    else:
        assert picture.path is not None, "a picture has a path or bytes"
        content = _bytes_at(picture, picture.path)
    if not content:
        raise _wrong(picture, "the file is empty", "copy it again")
    return content


def decode_picture(picture: Picture, content: bytes) -> Image:
    """`open_picture` of a file's bytes. Raises DataError."""
    with QUIET:
        try:
            return _decode(picture, content)
        except DataError:
            raise
        except Exception as error:  # Pillow's readers raise whatever the broken bytes make them stumble over
            raise _unreadable(picture, error) from error


def _bytes_at(picture: Picture, path: str) -> bytes:
    try:
        if not Path(path).is_file():  # a pipe or a device would be waited for
            kind = "it is a folder" if Path(path).is_dir() else f"no such file: {short(path)}"
            raise _wrong(picture, kind, NO_FILE)
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _wrong(picture, f"the file cannot be read: {reason}", "correct the path, or its permissions") from error


def _decode(picture: Picture, content: bytes) -> Image:
    from PIL import Image, UnidentifiedImageError

    Image.init()
    try:
        image: Any = Image.open(io.BytesIO(content), formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError as error:
        raise _wrong(
            picture, "not a picture, or its first bytes are broken", f"{KINDS}; write it again as png or jpg"
        ) from error
    except Image.DecompressionBombError as error:
        raise _too_large(picture) from error
    _check_size(picture, *image.size)
    if image.format != STILL_IN_SEVERAL_FRAMES and _has_another_frame(image):
        message = "it holds several frames or pages: lorafy learns from still pictures"
        raise _wrong(picture, message, "save the one that is meant as png or jpg")
    image.load()
    # Behind the pixels: a png may say it there, and a tiff is turned while it is read.
    orientation = _orientation(image)
    return _turned(_as_rgb(image), orientation)


def _check_size(picture: Picture, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise _too_large(picture)
    if max(width, height) > MOST_ASPECT * min(width, height):
        message = f"{width:,} x {height:,} pixels: one side is more than {MOST_ASPECT} times the other"
        raise _wrong(picture, message, "cut it into pieces, or take it out")


def _has_another_frame(image: Any) -> bool:
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def _as_rgb(image: Any) -> Image:
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    if image.has_transparency_data:
        # convert("RGB") would uncover the colours that lie under transparent pixels, black for the most part.
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Any) -> Image:
    """Grey values of more than 8 bits, scaled: convert("RGB") would clip them, so that nearly all become white.

    16 bits: divided by 257, because 65,535 is 255 times that: black stays black and white stays white. Larger or
    fractional values have no agreed white: up to 1 and up to 255 it is that, else the least and the greatest value
    become black and white.
    """
    import numpy
    from PIL import Image

    values = numpy.asarray(image).astype(numpy.float64)
    values = numpy.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    least, greatest = float(values.min()), float(values.max())
    if image.mode != "F" and least >= 0 and greatest <= 65_535:
        values = values / 257
    elif image.mode == "F" and least >= 0 and greatest <= 255:
        values = values * (255 if greatest <= 1 else 1)
    else:
        values = (values - least) * (255 / max(greatest - least, 1e-12))
    return Image.fromarray(values.round().astype(numpy.uint8))


def _orientation(image: Any) -> int:
    """1, upright, where EXIF is absent or broken: other programs show such a picture as it lies."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # as above: the picture itself is whole
        return 1
    return found if isinstance(found, int) else 1


def _turned(image: Image, orientation: int) -> Image:
    """PIL.ImageOps.exif_transpose does so too, but writes the EXIF block anew, and fails where that is odd."""
    from PIL.Image import Transpose

    ways = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(ways[orientation]) if orientation in ways else image


class _Quiet:
    """Pillow's warnings held back while any thread is inside: of large pictures, and of odd metadata.

    warnings.catch_warnings puts back what its own thread found, so two at once leave the wrong filters behind.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._caught: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.filterwarnings("ignore", module="PIL")
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._caught.__exit__(*error)


QUIET = _Quiet()


def short(name: str) -> str:
    """A name of a length that can be read."""
    return name if len(name) <= 200 else f"{name[:200]}..."


def _wrong(picture: Picture, message: str, fix: str) -> DataError:
    return DataError(Problem(short(picture.name), message, fix))


def _too_large(picture: Picture) -> DataError:
    message = f"more than {MOST_PIXELS / 1e6:.0f} megapixels"
    return _wrong(picture, message, "make it smaller; a model sees a few megapixels at most")


def _unreadable(picture: Picture, error: Exception) -> DataError:
    reason = f"{type(error).__name__}: {short(str(error))}"
    return _wrong(picture, f"the file is broken or cut off ({reason})", "copy or download it again, whole")
