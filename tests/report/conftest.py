from made_up_run import make_run  # noqa: F401  # a fixture
