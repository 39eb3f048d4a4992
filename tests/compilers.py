"""Fixtures of two rooms: where the compiled operations cannot be there they are not tested; where they can, a failed
build fails."""

from __future__ import annotations

import shutil
import sys

import pytest

from lorafy.kernels.build import COMPILERS


@pytest.fixture(scope="session")
def compiler() -> None:
    _skip_without_one()


@pytest.fixture(scope="session", autouse=True)
def always_a_compiler() -> None:
    """For a room whose tests all need one."""
    _skip_without_one()


def _skip_without_one() -> None:
    if sys.platform != "linux" or not any(map(shutil.which, COMPILERS)):
        pytest.skip("compiled operations need Linux and a C++ compiler")
