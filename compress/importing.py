"""Imports of large packages with the garbage collector at rest."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Around imports, or as a decorator: what a module makes stays, so the collector would look through all of it again
    and again and find nothing, for a fifth of the time that torch and transformers take.

    A collector that is off already stays off.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
