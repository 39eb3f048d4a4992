from __future__ import annotations

from pathlib import Path

import pytest

from small_models import base_models, language_bases, one_thread, stories, sums_json  # noqa: F401  # fixtures


@pytest.fixture(scope="session")
def shared_cases(shared_data: Path) -> Path:
    """Small inputs after what people reported; the test is skipped where there are none."""
    folder = shared_data.parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"the cases are not here: {folder}")
    return folder
