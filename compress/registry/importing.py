"""Large packages and the garbage collector, which would look through their modules again and again and find nothing.

torch and transformers bring a million objects that stay to the end. With the collector at rest while they load, and
told to leave them alone from then on, a short run takes a third less of the processor.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 100
"""Modules from which on it is worth it to have the collector pass them over."""

_own = False


def own_process() -> None:
    """This process runs the command and nothing else, so that all of it may be frozen (`gc.freeze`)."""
    global _own
    _own = True


@contextmanager
def uncollected(*, freeze: bool = False) -> Iterator[None]:
    """Around imports, or as a decorator: the collector rests; one that is off already stays off.

    With `freeze`, in a process of our own, all that is there once `MANY` modules were loaded is never looked through
    again: for places where nothing large can be garbage yet.
    """
    if not gc.isenabled():
        yield
        return
    before = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if freeze and _own and len(sys.modules) - before >= MANY:
            gc.freeze()
        gc.enable()


def leave() -> None:
    """Before a process of our own ends: the system frees what is left, sooner than the interpreter's last passes."""
    if _own:
        gc.freeze()
