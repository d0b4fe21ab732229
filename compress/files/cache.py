"""The folder of what can be made again: `COMPRESS_CACHE`, else `~/.cache/compress`."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

from compress.errors import InputError


def cache_folder() -> Path:
    """The folder, which is there. Raises InputError when nothing can be written into it."""
    folder = Path(os.environ.get("COMPRESS_CACHE") or "~/.cache/compress").expanduser().absolute()
    _try(folder)
    return folder


@contextmanager
def new_file(file: Path) -> Iterator[BinaryIO]:
    """Yields what becomes `file`, below the cache's folder, whole or not at all. Raises InputError, with the cure, when
    it cannot be written."""
    partial = file.with_name(f".{os.getpid()}-{file.name}")
    with _writing(cache_folder()):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as opened:
                yield opened
            partial.replace(file)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@cache  # once per process
def _try(folder: Path) -> None:
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            cure = "make room there, or set COMPRESS_CACHE to a folder on another disk"
            raise InputError(f"{folder}: the disk of the cache is full; {cure}") from None
        reason = "is a file" if os.path.isfile(folder) else f"cannot be written ({error.strerror})"
        shown = folder if len(str(folder)) < 300 else f"{str(folder)[:300]}…"
        raise InputError(f"{shown}: the folder of the cache {reason}; set COMPRESS_CACHE to another folder") from None
