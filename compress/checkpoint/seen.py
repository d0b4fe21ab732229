"""What a file was when it was opened, so that one replaced meanwhile is noticed; and reading that cannot crash.

Files are read, not memory-mapped: a mapped file that becomes shorter ends the process with SIGBUS.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from compress.errors import InputError


class Stamp(NamedTuple):
    """What the file system says of a file, symbolic links followed: bytes, time of the last change in ns, inode."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, file: Path) -> Stamp:
        """Raises InputError when the file is gone or cannot be looked at."""
        try:
            stat = file.stat()
        except OSError as error:
            raise unreadable(file, error) from None
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ino)


class Seen(NamedTuple):
    """A file as it was opened: its stamp, taken before the first byte was read, and the bytes that it began with."""

    stamp: Stamp
    head: bytes

    def check(self, file: Path) -> None:
        """Raise InputError when `file` is another one now."""
        if Stamp.of(file) == self.stamp:
            try:
                with file.open("rb") as opened:
                    if opened.read(len(self.head)) == self.head:
                        return
            except OSError as error:
                raise unreadable(file, error) from None
        raise InputError(f"{file}: changed while it was being read; the result would be a mixture; run again")


def fill(flat: Tensor, file: Path, start: int) -> None:
    """Read into `flat` uint8 `[bytes]` from byte `start` of `file`. Raises InputError when it has no such bytes."""
    view = flat.numpy().data
    try:
        with file.open("rb", buffering=0) as opened:
            opened.seek(start)
            while len(view):
                count = opened.readinto(view)
                if not count:
                    raise shortened(file)
                view = view[count:]
    except OSError as error:
        raise unreadable(file, error) from None


def shortened(file: Path) -> InputError:
    """For a file that ends before what it held when it was opened."""
    return InputError(f"{file}: ended early; it became shorter while it was being read; run again")


def unreadable(file: Path, error: OSError) -> InputError:
    """For a file that could be read when the run began."""
    if isinstance(error, FileNotFoundError):
        return InputError(f"{file}: was removed while it was being read; put it back and run again")
    return InputError(f"{file}: cannot be read: {error.strerror}")
