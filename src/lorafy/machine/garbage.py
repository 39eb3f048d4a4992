"""Keeps Python's garbage collector off a run's examples: some hundred thousand objects that all stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def none_collected() -> Iterator[None]:
    """No collection while examples are made: a quarter of the time went into looking for garbage among them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def kept_from_collection() -> Iterator[None]:
    """Takes what is there now out of collection until the end: it costs half a second each time on all of SST-2."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
