from bases import dropping_bases, family_bases, neox, ragged  # noqa: F401  # fixtures

from compilers import compiler  # noqa: F401  # a fixture
from gpu_on_a_cpu import varlen_on_a_cpu  # noqa: F401  # a fixture
from small_models import base_models, one_thread, sums_json  # noqa: F401  # fixtures
