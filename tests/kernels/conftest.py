import pytest

from compilers import always_a_compiler  # noqa: F401  # a fixture
from gpu_on_a_cpu import varlen_on_a_cpu  # noqa: F401  # a fixture
from lorafy.kernels import narrow
from small_models import one_thread  # noqa: F401  # a fixture


@pytest.fixture(params=["narrow", "wide"])
def registers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the operations that a processor with AVX-512 gets, and with those of one without."""
    monkeypatch.setattr(narrow, "NARROW", request.param == "narrow")
    monkeypatch.setattr(narrow, "LONG", 1)
