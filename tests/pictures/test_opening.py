"""Pixels as a viewer shows them; and whatever a file holds, a DataError is all that comes out of it."""

from __future__ import annotations

import hashlib
import random
import struct
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from lorafy.pictures.opening import FORMATS, MOST_PIXELS, QUIET, open_picture
from lorafy.types import DataError, Picture
from picture_files import animated, exif, png_of_size, quarters, saved, truncated

EXACTLY: dict[str, Any] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
"""How to save so that pixels stay nearly as they are."""


def pixels(content: bytes) -> Any:
    image = open_picture(Picture("a picture", data=content))
    assert image.mode == "RGB"
    return numpy.asarray(image).astype(int)


def problem(picture: Picture) -> Any:
    with pytest.raises(DataError) as caught:
        open_picture(picture)
    (found,) = caught.value.problems
    assert found.fix
    return found


@pytest.mark.parametrize("kind", FORMATS)
def test_every_kind_of_file(kind: str) -> None:
    content = saved(quarters().quantize(4) if kind == "GIF" else quarters(), kind, **EXACTLY.get(kind, {}))
    assert numpy.abs(pixels(content) - numpy.asarray(quarters()).astype(int))[2:6, 2:10].max() < 20


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "YCbCr"])
def test_every_way_of_colours(mode: str) -> None:
    kind = {"YCbCr": "JPEG", "CMYK": "TIFF"}.get(mode, "PNG")
    found = pixels(saved(quarters(mode=mode), kind, **EXACTLY.get(kind, {})))
    expected = numpy.asarray(quarters(mode=mode).convert("RGB")).astype(int)
    assert numpy.abs(found - expected)[2:6, 2:10].max() < 10


def test_transparent_parts_are_white() -> None:
    """convert("RGB") would show what lies under them."""
    colour = numpy.zeros((4, 4, 4), numpy.uint8)
    colour[..., 0] = 200
    colour[0, :, 3], colour[1, :, 3] = 255, 128
    see_through = Image.fromarray(colour)
    for content in (saved(see_through), saved(see_through, "WEBP", lossless=True)):
        found = pixels(content)
        assert found[0, 0].tolist() == [200, 0, 0]
        assert found[1, 0].tolist() == pytest.approx([227, 127, 127], abs=1)
        assert (found[2:] == 255).all()
    grey = Image.fromarray(numpy.array([[[0, 255], [0, 0]]], numpy.uint8), "LA")
    assert pixels(saved(grey)).tolist() == [[[0, 0, 0], [255, 255, 255]]]
    named = Image.new("RGB", (2, 1), (9, 8, 7))
    named.putpixel((0, 0), (1, 2, 3))
    assert pixels(saved(named, transparency=(9, 8, 7))).tolist() == [[[1, 2, 3], [255, 255, 255]]]
    only = Image.new("P", (2, 1), 1)
    only.putpalette([0, 0, 0, 50, 60, 70])
    only.putpixel((0, 0), 0)
    assert pixels(saved(only, transparency=1)).tolist() == [[[0, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (numpy.array([[0, 257, 32_896, 65_535]], numpy.uint16), "PNG", [0, 1, 128, 255]),
        (numpy.array([[0, 257, 32_896, 65_535]], numpy.uint16), "TIFF", [0, 1, 128, 255]),
        (numpy.array([[0, 257, 32_896, 65_535]], numpy.int32), "TIFF", [0, 1, 128, 255]),
        (numpy.array([[-100, 0, 100, 2_000_000]], numpy.int32), "TIFF", [0, 0, 0, 255]),
        (numpy.array([[0, 0.2, 0.5, 1]], numpy.float32), "TIFF", [0, 51, 128, 255]),
        (numpy.array([[0, 51, 128, 255]], numpy.float32), "TIFF", [0, 51, 128, 255]),
        (numpy.array([[-1, 0, numpy.nan, 1]], numpy.float32), "TIFF", [0, 128, 128, 255]),
    ],
)
def test_more_than_8_bits_are_scaled_and_not_clipped(values: Any, kind: str, expected: list[int]) -> None:
    found = pixels(saved(Image.fromarray(values), kind))
    assert found[0].tolist() == [[value] * 3 for value in expected]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_exif_says(orientation: int, kind: str) -> None:
    """As Pillow itself turns it; the corners by hand for the one that every telephone writes."""
    found = pixels(saved(quarters(), kind, exif=exif(orientation), **EXACTLY.get(kind, {})))
    ways = [None, *(Image.Transpose[name] for name in (
        "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"
    ))]  # fmt: skip
    way = ways[orientation - 1]
    expected = numpy.asarray(quarters() if way is None else quarters().transpose(way)).astype(int)
    assert found.shape == expected.shape
    assert numpy.abs(found - expected)[[1, 1, -2, -2], [1, -2, 1, -2]].max() < 10
    if orientation == 6:  # the left side is on top
        assert found.shape == (24, 16, 3)
        assert numpy.abs(found[1, 1] - [10, 10, 250]).max() < 10


def test_broken_exif_leaves_the_picture_as_it_lies() -> None:
    for block in (b"Exif\x00\x00nonsense", b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff", b"Exif\x00\x00"):
        assert pixels(saved(quarters(), "JPEG", exif=block)).shape == (16, 24, 3)


def test_a_photograph_with_a_map_behind_it_is_one_picture() -> None:
    """Telephones write such files under .jpg; Pillow calls them MPO."""
    content = saved(quarters(), "MPO", save_all=True, append_images=[Image.new("L", (4, 4)).convert("RGB")])
    assert pixels(content).shape == (16, 24, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"not a picture at all", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "not a picture"),
        (animated("GIF"), "it holds several frames or pages: lorafy learns from still pictures"),
        (animated("PNG"), "it holds several frames or pages"),
        (animated("WEBP"), "it holds several frames or pages"),
        (animated("TIFF"), "it holds several frames or pages"),
        (saved(quarters(205, 1)), "205 x 1 pixels: one side is more than 200 times the other"),
        (saved(quarters(3, 700)), "3 x 700 pixels"),
        (png_of_size(20_000, 9_000), "more than 179 megapixels"),
        (png_of_size(MOST_PIXELS // 10_000 + 1, 10_000), "more than 179 megapixels"),
        (truncated("JPEG"), "the file is broken or cut off"),
        (truncated("PNG"), "the file is broken or cut off"),
        (truncated("WEBP"), "the file is broken or cut off"),
        (truncated("BMP"), "the file is broken or cut off"),
        (saved(quarters())[:30], "not a picture, or its first bytes are broken"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_used_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for picture in (Picture("images/a.jpg", path=str(path)), Picture("images/a.jpg", data=content)):
        found = problem(picture)
        assert found.where == "images/a.jpg"
        assert message in found.message


def test_200_to_1_is_still_a_picture() -> None:
    assert pixels(saved(quarters(200, 1))).shape == (1, 200, 3)


def test_a_file_that_is_not_there_or_no_file(tmp_path: Path) -> None:
    missing = tmp_path / "a.jpg"
    assert problem(Picture("a.jpg", path=str(missing))).message == f"no such file: {missing}"
    assert problem(Picture("a", path=str(tmp_path))).message == "it is a folder"
    for path in ("x" * 5_000, "a\0.jpg"):
        assert len(str(problem(Picture(path, path=path)))) < 600


def test_a_file_that_changed_since_it_was_looked_at_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(saved(quarters()))
    seen = Picture("a.png", path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert open_picture(seen).size == (24, 16)
    path.write_bytes(saved(quarters(12, 8)))
    assert "the file changed since it was looked at" in problem(seen).message
    path.unlink()
    assert "no such file" in problem(seen).message


def test_large_pictures_and_odd_metadata_give_no_warnings_in_any_thread() -> None:
    large = saved(Image.new("1", (9_500, 9_500)))  # 90 megapixels, where Pillow warns
    odd = saved(quarters(), "JPEG", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x05\x00\x0f\x01")
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pictures = [Picture("large", data=large), *[Picture("odd", data=odd)] * 4]
        threads = [threading.Thread(target=open_picture, args=[picture]) for picture in pictures]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with QUIET:
            warnings.warn("of somebody else", UserWarning, stacklevel=1)
    assert [str(one.message) for one in caught] == ["of somebody else"]
    assert list(warnings.filters) == before


MUTATED = {
    "png": saved(quarters(), exif=exif(6)),
    "png palette": saved(quarters(mode="P"), transparency=1),
    "png 16 bits": saved(Image.fromarray(numpy.arange(600, dtype=numpy.uint16).reshape(20, 30) * 100)),
    "jpg": saved(quarters(), "JPEG", exif=exif(6)),
    "jpg progressive": saved(quarters(), "JPEG", progressive=True),
    "jpg cmyk": saved(quarters(mode="CMYK"), "JPEG"),
    "gif": saved(quarters(mode="P"), "GIF"),
    "webp": saved(quarters(), "WEBP", exif=exif(6)),
    "bmp": saved(quarters(), "BMP"),
    "tiff": saved(quarters(), "TIFF"),
    "ppm": saved(quarters(), "PPM"),
    "jp2": saved(quarters(), "JPEG2000"),
}


@pytest.mark.parametrize("kind", MUTATED)
def test_of_a_mutated_file_nothing_comes_but_a_picture_or_a_data_error(kind: str) -> None:
    """What Pillow's readers raise: OSError for the most part, SyntaxError, ValueError, TypeError, RuntimeError, ..."""
    dice, whole, refused = random.Random(kind), MUTATED[kind], 0
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(dice.choice((0, 1, 3, 20))):
            content[dice.randrange(min(len(content), dice.choice((64, 300, 10**6))))] = dice.randrange(256)
        cut = content[: dice.randrange(len(content))] if dice.random() < 0.5 else content
        try:
            assert open_picture(Picture("a", data=bytes(cut))).mode == "RGB"
        except DataError as error:
            refused += 1
            assert error.problems[0].fix
    assert 10 < refused < 60


def test_a_size_of_nothing_is_refused() -> None:
    head = png_of_size(16, 16).replace(struct.pack(">II", 16, 16), struct.pack(">II", 0, 16))
    assert problem(Picture("a", data=head)).where == "a"


def test_the_real_pictures(shared_data: Path) -> None:
    """horse.png is the one with transparent parts, and camera.png a grey one."""
    folder = shared_data / "vlm" / "images"
    if not folder.is_dir():
        pytest.skip(f"the real pictures are not here: {folder}")
    seen = {path.name: open_picture(Picture(path.name, path=str(path))) for path in sorted(folder.iterdir())}
    assert len(seen) == 13
    assert {image.mode for image in seen.values()} == {"RGB"}
    horse = Image.open(folder / "horse.png")
    assert horse.mode == "RGBA"
    clear = numpy.asarray(horse)[..., 3] == 0
    assert (numpy.asarray(seen["horse.png"])[clear] == 255).all()
    grey = numpy.asarray(seen["camera.png"])
    assert (grey == numpy.asarray(Image.open(folder / "camera.png"))[..., None]).all()
