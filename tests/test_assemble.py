"""What assemble.py does beside putting parts together; the rest is seen in whole runs."""

from __future__ import annotations

import gc

import pytest

from lorafy.assemble import not_garbage


def test_the_garbage_collector_is_given_back_what_a_run_kept_from_it() -> None:
    with pytest.raises(KeyboardInterrupt), not_garbage():
        assert gc.get_freeze_count() > 0
        raise KeyboardInterrupt
    assert gc.get_freeze_count() == 0
    assert gc.isenabled()
