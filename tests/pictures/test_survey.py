"""Every distinct picture is looked at once, and each gets what was seen, or what is wrong."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from lorafy.pictures import survey as room
from lorafy.pictures.survey import survey
from lorafy.types import Picture, Problem
from picture_files import exif, quarters, saved, truncated


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in {
        "turned.jpg": saved(quarters(), "JPEG", exif=exif(6)),
        "plain.png": saved(quarters()),
        "cut.jpg": truncated(),
        "empty.png": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_what_is_seen_and_what_is_wrong_in_their_order(folder: Path) -> None:
    content = saved(quarters(8, 4))
    names = ["turned.jpg", "cut.jpg", "plain.png", "gone.png", "empty.png", "turned.jpg"]
    pictures = [Picture(name, path=str(folder / name)) for name in names]
    pictures += [Picture("picture 1 of row 8", data=content), Picture("picture 1 of row 9", data=content)]
    turned, cut, plain, gone, empty, again, of_8, of_9 = survey(pictures)
    assert isinstance(turned, Picture)
    assert (turned.width, turned.height) == (16, 24)  # as it is to be seen
    assert turned.sha256 == hashlib.sha256((folder / "turned.jpg").read_bytes()).hexdigest()
    assert turned == again
    assert isinstance(plain, Picture)
    assert (plain.width, plain.height) == (24, 16)
    assert isinstance(of_8, Picture)
    assert isinstance(of_9, Picture)
    assert (of_8.name, of_9.name) == ("picture 1 of row 8", "picture 1 of row 9")
    assert of_8.sha256 == of_9.sha256 == hashlib.sha256(content).hexdigest()
    for look, name, message in (
        (cut, "cut.jpg", "broken or cut off"),
        (gone, "gone.png", "no such file"),
        (empty, "empty.png", "the file is empty"),
    ):
        assert isinstance(look, Problem)
        assert look.where == name
        assert message in look.message


def test_each_distinct_picture_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = room.read_picture

    def counted(picture: Picture) -> bytes:
        read.append(picture.name)
        return original(picture)

    monkeypatch.setattr(room, "read_picture", counted)
    looks = survey([Picture("plain.png", path=str(folder / "plain.png"))] * 50)
    assert read == ["plain.png"]
    assert len(looks) == 50
    assert survey([]) == []


def test_a_bar_is_shown_on_a_terminal_and_for_many_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(room.MANY + 1):
        (folder / f"{number}.png").write_bytes(saved(quarters(4 + number, 4)))
    many = [Picture(str(number), path=str(folder / f"{number}.png")) for number in range(room.MANY + 1)]
    survey(many)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setitem(os.environ, "TERM", "xterm")
    looks: list[Any] = survey(many)
    assert [look.width for look in looks] == list(range(4, 5 + room.MANY))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "looking at the pictures" in shown.err
    survey(many[:10])
    assert capsys.readouterr() == ("", "")
