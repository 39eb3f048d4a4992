"""Builds the compiled operations on first use, where a compiler is, and keeps them in the user's cache."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from ..machine.environment import processor_facts

SOURCES = Path(__file__).parent / "cpu"
COMPILERS = ("g++", "clang++")
FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",  # the cache's key holds the processor
    "-fopenmp",  # the threads are torch's: its libgomp is loaded already
    "-fno-math-errno",
    "-fno-trapping-math",
    "-shared",
    "-fPIC",
)


class CannotBuild(Exception):
    """Why there are no compiled operations here; training goes on without them."""


@cache
def load_library() -> ctypes.CDLL:
    """The compiled operations. Raises CannotBuild with the reason."""
    if sys.platform != "linux":
        raise CannotBuild(f"they are built on Linux only, this is {platform.system()} (on Windows: WSL)")
    compiler = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    key = hashlib.sha256("\n".join([*FLAGS, *processor_facts(), *_texts()]).encode()).hexdigest()[:16]
    library = cache_folder() / f"cpu-{key}.so"
    if not _is_there(library):
        if compiler is None:
            raise CannotBuild(
                f"no C++ compiler is here ({' or '.join(COMPILERS)}; on Debian or Ubuntu: apt install g++)"
            )
        _build(compiler, library)
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise CannotBuild(f"{library} cannot be loaded: {error}") from error


def cache_folder() -> Path:
    """Raises CannotBuild where the user has no home."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "lorafy" / "kernels"
    except RuntimeError as error:  # a container may run under a number that no user has
        raise CannotBuild("this user has no home to keep them in; set XDG_CACHE_HOME to a folder") from error


def _is_there(library: Path) -> bool:
    try:
        return library.is_file()
    except OSError as error:
        raise CannotBuild(f"{library.parent} cannot be read: {error.strerror}") from error


def _texts() -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted(SOURCES.iterdir()) if path.suffix in (".cpp", ".h")]


def _build(compiler: str, library: Path) -> None:
    """Whole or not at all: several processes may build at once."""
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            target = Path(folder) / library.name
            sources = [str(path) for path in sorted(SOURCES.glob("*.cpp"))]
            command = [compiler, *FLAGS, *sources, "-o", str(target)]
            done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
            if done.returncode != 0:
                lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
                raise CannotBuild(f"{compiler} failed: {lines[0] if lines else f'exit code {done.returncode}'}")
            target.replace(library)
    except OSError as error:
        raise CannotBuild(f"{library.parent} cannot be written: {error.strerror}") from error
