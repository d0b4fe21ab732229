"""Memory freed in Python given back to the system, where the C library needs to be told."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

M_ARENA_MAX = -8


@cache
def _glibc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL("libc.so.6")
        library.malloc_trim.argtypes = [ctypes.c_size_t]
        return library
    except (OSError, AttributeError):
        return None


def one_arena() -> None:
    """Let threads that start later share the heap: ours run one at a time, and heaps of their own only fragment."""
    if (library := _glibc()) is not None:
        library.mallopt(M_ARENA_MAX, 1)


def trim() -> None:
    """Return free pages of the heap to the system."""
    if (library := _glibc()) is not None:
        library.malloc_trim(0)
