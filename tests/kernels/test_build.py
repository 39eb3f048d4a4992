"""Building the compiled operations: once, whole or not at all, and a sentence where it cannot be."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lorafy.kernels import build
from lorafy.kernels.build import CannotBuild, cache_folder, load_library
from lorafy.kernels.compiled import _SIGNATURES

build_now = load_library.__wrapped__
"""Without the memory of this process: what other tests have loaded stays loaded."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder for one test; every path of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path / "cache" / "lorafy" / "kernels"


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`compiler(body)` is the only g++ on PATH: a Python script whose `target` is the file it should write.

    Returns the file that gets a line for each call.
    """

    def make(body: str, name: str = "g++") -> Path:
        folder, calls = tmp_path / "bin", tmp_path / "calls"
        folder.mkdir(exist_ok=True)
        lines = [f"#!{sys.executable} -S", "import os, shutil, sys", "target = sys.argv[-1]"]
        lines += [f"print(*sys.argv, file=open({str(calls)!r}, 'a'))", body]
        (folder / name).write_text("\n".join(lines), encoding="utf-8")
        (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))
        return calls

    return make


def everything_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_no_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotBuild, match=r"no C\+\+ compiler .*g\+\+ or clang\+\+.*apt install g\+\+"):
        build_now()
    assert not cache.exists()


@pytest.mark.parametrize("name", build.COMPILERS)
def test_a_compiler_that_fails_is_quoted(compiler: Callable[..., Path], cache: Path, name: str) -> None:
    compiler(
        "print('In file included from lora.cpp:3:', file=sys.stderr)\n"
        "print('common.h:20:9: error: no such thing', file=sys.stderr)\n"
        "print('common.h:21:9: error: nor this', file=sys.stderr)\n"
        "sys.exit(1)",
        name,
    )
    with pytest.raises(CannotBuild) as failure:
        build_now()
    assert str(failure.value).endswith(f"/{name} failed: common.h:20:9: error: no such thing")
    assert everything_below(cache) == []


@pytest.mark.parametrize(
    "body, said",
    [
        ("print('cc1plus: out of memory', file=sys.stderr); sys.exit(4)", "out of memory"),
        ("sys.stderr.buffer.write(b'\\xff\\xfe error: \\xe9\\n'); sys.exit(1)", "error"),
        ("sys.exit(3)", "exit code 3"),
        ("os.kill(os.getpid(), 9)", "exit code -9"),
    ],
    ids=["without the word error", "not UTF-8", "silent", "killed"],
)
def test_a_compiler_that_fails_otherwise(compiler: Callable[..., Path], cache: Path, body: str, said: str) -> None:
    compiler(body)
    with pytest.raises(CannotBuild, match=f"failed: .*{said}"):
        build_now()
    assert everything_below(cache) == []


def test_half_a_library_is_not_left_behind(compiler: Callable[..., Path], cache: Path) -> None:
    compiler(
        "open(target, 'wb').write(b'\\x7fELF half of it')\nprint('error: disk full', file=sys.stderr)\nsys.exit(1)"
    )
    with pytest.raises(CannotBuild, match="disk full"):
        build_now()
    assert everything_below(cache) == []


def test_a_library_that_cannot_be_loaded(compiler: Callable[..., Path], cache: Path) -> None:
    compiler("open(target, 'wb').write(b'for another machine')")
    with pytest.raises(CannotBuild, match=f"{cache}.*cannot be loaded"):
        build_now()


def test_a_build_that_is_stopped_leaves_nothing(
    compiler: Callable[..., Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler("")

    def stopped(command: list[str], **settings: object) -> None:
        Path(command[-1]).write_bytes(b"\x7fELF half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(build.subprocess, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        build_now()
    assert everything_below(cache) == []


def test_a_cache_folder_that_cannot_be_made(compiler: Callable[..., Path], tmp_path: Path, monkeypatch) -> None:
    compiler("")
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(CannotBuild, match=r"file/lorafy/kernels cannot be written: Not a directory"):
        build_now()


@pytest.mark.parametrize("mode", [0o555, 0o000], ids=["read only", "closed"])
def test_a_cache_folder_of_somebody_else(mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's home is often root's. Root itself may write everywhere: here it is nobody for a moment."""
    monkeypatch.setattr(build, "_texts", list)  # nobody may be unable to read the sources
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        base = Path(name) / "cache"
        (base / "lorafy" / "kernels").mkdir(parents=True)
        Path(name).chmod(0o755)
        monkeypatch.setenv("XDG_CACHE_HOME", str(base))
        for folder in (base / "lorafy" / "kernels", base / "lorafy", base):
            folder.chmod(mode)
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(CannotBuild, match="Permission denied"):
                build_now()
        finally:
            os.seteuid(before)
            base.chmod(0o755)
            (base / "lorafy").chmod(0o755)
            (base / "lorafy" / "kernels").chmod(0o755)


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "cache" / "lorafy" / "kernels"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for unset in ("delete", "empty"):
        monkeypatch.setenv("XDG_CACHE_HOME", "")
        if unset == "delete":
            monkeypatch.delenv("XDG_CACHE_HOME")
        assert cache_folder() == tmp_path / "home" / ".cache" / "lorafy" / "kernels"


def test_a_home_that_is_nowhere(compiler: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may run under a number that no user has."""
    compiler("")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")

    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(CannotBuild, match=r"no home .*XDG_CACHE_HOME"):
        build_now()


def test_it_is_built_once_and_whole(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real build; then it is there without any compiler, every operation in both types."""
    build_now()
    (built,) = everything_below(cache)
    monkeypatch.setenv("PATH", str(tmp_path))
    library = build_now()
    assert library._name == str(cache / built)
    for name in _SIGNATURES:
        for suffix in ("bf16", "f32"):
            assert getattr(library, f"{name}_{suffix}"), name
    assert everything_below(cache) == [built]


def test_another_source_or_processor_is_another_library(
    cache: Path, compiler: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library is never run on a machine, or from a source, that it was not built for."""
    calls = compiler("open(target, 'wb').write(b'')")
    real = build._texts()
    for facts, texts in [(["one"], real), (["one"], real), (["two"], real), (["one"], [*real, "// more"])]:
        monkeypatch.setattr(build, "processor_facts", lambda facts=facts: facts)
        monkeypatch.setattr(build, "_texts", lambda texts=texts: texts)
        with pytest.raises(CannotBuild, match="cannot be loaded"):
            build_now()
    assert len(everything_below(cache)) == 3
    assert len(calls.read_text(encoding="utf-8").splitlines()) == 3
