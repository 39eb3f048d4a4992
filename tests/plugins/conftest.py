from installation import installed  # noqa: F401  # a fixture

from small_models import base_models, language_bases, one_thread  # noqa: F401  # fixtures
