"""A run gives the garbage collector back as it was."""

from __future__ import annotations

import gc

import pytest

from lorafy.machine.garbage import kept_from_collection


def test_the_garbage_collector_is_given_back_what_a_run_kept_from_it() -> None:
    with pytest.raises(KeyboardInterrupt), kept_from_collection():
        assert gc.get_freeze_count() > 0
        raise KeyboardInterrupt
    assert gc.get_freeze_count() == 0
    assert gc.isenabled()
