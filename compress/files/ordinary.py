"""Only ordinary files are read: a named pipe is waited for without end, and some devices never stop giving."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from compress.errors import InputError

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
LONGEST = 255
"""Bytes of a file's name, on every common file system."""


def check_ordinary(file: Path) -> None:
    """Raise InputError when what is at `file` is no ordinary file, or a link that leads nowhere.

    Where there is nothing at all, whoever opens it says so.
    """
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        if file.is_symlink():
            raise InputError(f"{file}: a link to {os.readlink(file)}, which is not there; put the file there") from None
        return
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        shown = f"{str(file)[:LONGEST]}…" if len(str(file)) > LONGEST else file
        raise InputError(f"{shown}: cannot be read: {reason}") from None
    if (kind := KINDS.get(stat.S_IFMT(mode))) is not None:
        raise InputError(f"{file}: {kind}; only an ordinary file is read, put one there")


def is_name(text: object) -> bool:
    """Whether `text` can name a file inside a folder."""
    return (
        isinstance(text, str)
        and text not in ("", ".", "..")
        and not {"/", "\0"} & set(text)
        and len(os.fsencode(text)) <= LONGEST
    )


def is_path(path: Path) -> bool:
    """Whether a file system could hold such a path."""
    return "\0" not in str(path) and all(len(os.fsencode(part)) <= LONGEST for part in path.parts)
