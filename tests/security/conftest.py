from strangers import own_modules, told, wild_run  # noqa: F401  # fixtures

from small_models import base_models, one_thread  # noqa: F401  # fixtures
