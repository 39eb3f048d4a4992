from compilers import always_a_compiler  # noqa: F401  # a fixture
from gpu_on_a_cpu import varlen_on_a_cpu  # noqa: F401  # a fixture
from small_models import one_thread  # noqa: F401  # a fixture
