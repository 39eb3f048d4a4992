"""Whatever a cell or a part names becomes the picture that is meant, or a mistake with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lorafy.pictures.references import Place, pictures_of
from lorafy.types import DataError
from picture_files import in_base64

PLACE = Place("data.columns.images", "row 7")
BYTES = b"\x89PNG and so on?>"
BASE64 = in_base64(BYTES)
FIRST = "picture 1 of row 7"


def read(value: Any) -> list[tuple[str, Any]]:
    """Name, and path or bytes, of each picture."""
    return [(picture.name, picture.path or picture.data) for picture in pictures_of(value, PLACE)]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("images/a.jpg", "images/a.jpg"),  # one picture, not 12: LLaMA-Factory's issue 5883
        (" images/a b.jpg\n", "images/a b.jpg"),
        ("/data/图片/猫.png", "/data/图片/猫.png"),
        (r"C:\data\a.jpg", r"C:\data\a.jpg"),
        ("[1] a.jpg", "[1] a.jpg"),
        ("data/a.jpg", "data/a.jpg"),
        ("file:///data/a.jpg", "/data/a.jpg"),
        ("FILE://localhost/data/a%20b%23.jpg", "/data/a b#.jpg"),
        ("file:///C:/data/a.jpg", "C:/data/a.jpg"),
        ("file://C:/data/a.jpg", "C:/data/a.jpg"),
        ("file://images/a.jpg", "images/a.jpg"),
        ({"bytes": None, "path": "a.jpg"}, "a.jpg"),
        ({"path": "a.jpg"}, "a.jpg"),
        ({"url": "file:///a.jpg", "detail": "low"}, "/a.jpg"),
        ({"image": {"bytes": None, "path": "a.jpg"}}, "a.jpg"),
        (["a.jpg"], "a.jpg"),
        (("a.jpg", None), "a.jpg"),
    ],
)
def test_a_path(value: Any, path: str) -> None:
    ((name, found),) = read(value)
    assert found == path
    assert name.endswith(path) or name == str(value).strip()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (BYTES, FIRST),
        (bytearray(BYTES), FIRST),
        ({"bytes": BYTES, "path": None}, FIRST),
        ({"bytes": BYTES, "path": "a.jpg"}, "a.jpg"),
        ({"bytes": BASE64, "path": "a.jpg"}, "a.jpg"),
        ({"base64": BASE64}, FIRST),
        ({"base64": f"data:image/png;base64,{BASE64}", "path": None}, FIRST),
        ({"base64": BASE64.rstrip("=").replace("/", "_").replace("+", "-")}, FIRST),
        ({"base64": "\n".join(BASE64[place : place + 4] for place in range(0, len(BASE64), 4))}, FIRST),
        (f"data:image/png;base64,{BASE64}", FIRST),
        (f"DATA:image/PNG;charset=x;BASE64,{BASE64.replace('=', '%3D')}", FIRST),
        ({"url": f"data:image/png;base64,{BASE64}"}, FIRST),
        ({"image": BYTES}, FIRST),
    ],
    ids=str,
)
def test_bytes(value: Any, name: str) -> None:
    assert read(value) == [(name, BYTES)]


def test_a_list_in_any_writing_keeps_its_order_and_each_its_number() -> None:
    for several in (
        ["a.jpg", "b.jpg"],
        ("a.jpg", None, "b.jpg"),
        json.dumps(["a.jpg", "b.jpg"]),
        "['a.jpg', 'b.jpg']",  # as pandas writes a list into csv
        [{"path": "a.jpg", "bytes": None}, {"path": "b.jpg"}],
    ):
        assert [path for _, path in read(several)] == ["a.jpg", "b.jpg"]
    assert [name for name, _ in read([BYTES, "b.jpg", BYTES])] == [FIRST, "b.jpg", "picture 3 of row 7"]


@pytest.mark.parametrize(
    "value",
    [None, float("nan"), "", "  ", [], "[]", [None], [""], b"", {}, {"bytes": None, "path": None}, {"path": ""}],
    ids=str,
)
def test_nothing_is_no_picture(value: Any) -> None:
    assert read(value) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("https://example.org/a.jpg", "https://example.org/a.jpg is an address of the network (row 7)"),
        ({"url": "HTTP://example.org/a.jpg"}, "lorafy downloads no pictures while it trains: download them first"),
        ("hf://datasets/a/b.png", "is an address of the network"),
        ("s3://bucket/b.png", "is an address of the network"),
        ({"bytes": None, "path": "zip://a.jpg::/data/a.zip"}, "is an address of the network"),
        ("data:image/png;base64,@@@@", "broken base64 (row 7)"),
        ("data:image/png;base64,", "base64 of nothing (row 7)"),
        ({"base64": "a"}, "broken base64 (row 7)"),
        ("data:image/svg+xml,<svg/>", "data:image/svg+xml is a data URL without base64"),
        ("data:video/mp4;base64,AAAA", "data:video/mp4;base64 is no data URL of a picture"),
        (["a.jpg", ["b.jpg"]], "a list in the place of one picture names no picture"),
        ({"bytes": [137, 80]}, "bytes or base64 that are neither bytes nor a text"),
        (3, "3 names no picture (row 7)"),
        (True, "True names no picture (row 7)"),
        ({"id": 3}, "an object with the keys id names no picture"),
    ],
    ids=str,
)
def test_what_names_no_picture_is_refused(value: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(value)
    (problem,) = caught.value.problems
    assert problem.where == "data.columns.images"
    assert problem.fix
    assert message in str(problem)
