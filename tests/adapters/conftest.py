from small_models import base_models, language_bases, one_thread, stories, sums_json  # noqa: F401  # fixtures
