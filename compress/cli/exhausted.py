"""Memory that ran out, in words: the many errors by which Python, torch and the system say so."""

from __future__ import annotations

import errno
import sys

SIGNS = ("can't start new thread", "can't allocate memory", "not enough memory", "std::bad_alloc", "out of memory")
"""What a RuntimeError of torch's or of Python's threads says then."""

CURE = "close other programs, raise the limit (`ulimit -v`), or lower calibrate.samples, .length and .batch"


def exhausted(error: Exception) -> str | None:
    """What to say where `error` means that memory ran out, else None."""
    text = " ".join(str(error).split())[:200]
    torch = sys.modules.get("torch")
    if (
        isinstance(error, MemoryError)
        or (torch is not None and isinstance(error, torch.OutOfMemoryError))
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, RuntimeError) and any(sign in text for sign in SIGNS))
    ):
        return f"memory ran out ({text or type(error).__name__}); {CURE}"
    return None
