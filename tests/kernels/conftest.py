from __future__ import annotations

import shutil
import sys

import pytest

from gpu_on_a_cpu import varlen_on_a_cpu  # noqa: F401  # a fixture
from lorafy.kernels.build import COMPILERS
from small_models import one_thread  # noqa: F401  # a fixture


@pytest.fixture(scope="session", autouse=True)
def _a_compiler() -> None:
    """Where they cannot be there the compiled operations are not tested; where they can, a failed build fails."""
    if sys.platform != "linux" or not any(map(shutil.which, COMPILERS)):
        pytest.skip("compiled operations need Linux and a C++ compiler")
