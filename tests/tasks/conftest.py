from small_models import base_models, one_thread  # noqa: F401  # fixtures
