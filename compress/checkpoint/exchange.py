"""Two folders exchange their names in one step, where the operating system can."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

HERE = -100
"""AT_FDCWD of Linux: paths are as they stand."""

EXCHANGE = 2
"""RENAME_EXCHANGE of Linux, and RENAME_SWAP of macOS."""

CANNOT = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


def exchange(one: Path, other: Path) -> bool:
    """Both exist all the time, and nobody ever sees one under both names or under none.

    False, and nothing done, where the C library, the kernel or the file system has no such call: Linux has it with
    glibc 2.28 (https://man7.org/linux/man-pages/man2/rename.2.html), macOS on APFS. Raises OSError when it fails.
    """
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    try:
        if sys.platform == "darwin":
            failed = library.renamex_np(*names, ctypes.c_uint(EXCHANGE))
        elif sys.platform == "linux":
            failed = library.renameat2(HERE, names[0], HERE, names[1], ctypes.c_uint(EXCHANGE))
        else:
            return False
    except AttributeError:
        return False
    if failed and (code := ctypes.get_errno()) not in CANNOT:
        raise OSError(code, os.strerror(code), str(one), None, str(other))
    return not failed
