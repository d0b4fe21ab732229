"""A new folder appears whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from traceback import clear_frames

from compress.checkpoint import standing
from compress.checkpoint.exchange import exchange
from compress.checkpoint.leftovers import put_right
from compress.checkpoint.ours import mark, replaceable
from compress.checkpoint.signals import ending_raises, undisturbed
from compress.checkpoint.target import GONE, OLD, check_target, hidden_name, placed
from compress.errors import InputError, VerifyError


@contextmanager
def new_folder(
    target: Path, force: bool = False, inputs: Iterable[str | Path] = (), *, resume: bool = False
) -> Iterator[Path]:
    """Yields a hidden sibling of `target` to write into, which becomes `target` when the block ends.

    When the block raises, or the process is interrupted or told to end, the sibling is removed; what a VerifyError
    leaves is kept as `<target>.partial`. An existing `target` is replaced only with `force`, only if this program wrote
    it or it is empty, and only at the end. Raises InputError when `target` exists, has to do with the `inputs` (see
    `check_target`), cannot be written or the disk is full.

    A process that is killed leaves `target` as it was or whole and new, at every moment; the next start removes what
    lies beside it, and says so; with `resume` the finished steps that
    lie there stay (see `compress.execution.resume`). Where the
    system cannot exchange two names at once, `target` is missing for a moment while it is replaced, and the next start
    puts the new one there. The same holds when the power fails: every file is on the disk before its folder gets its
    name. That the name is there too is certain once the block has ended.
    """
    target, inputs = placed(target), list(inputs)
    put_right(target, resume)
    check_target(target, force, inputs)
    work = target.with_name(hidden_name(target, os.getpid()))
    made: list[Path] = []
    with ending_raises():
        try:
            try:
                _make(work, made)
                yield work
                mark(work)
                to_disk(work)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise InputError(f"{target}: the disk is full; make room or write elsewhere") from None
                raise
            with undisturbed():
                _put(work, target, force)
        except VerifyError as error:
            with undisturbed():
                kept = _keep(work, target, inputs)
            raise VerifyError(f"{error}\nwhat was written is kept in {kept}") from error
        except BaseException as error:
            if isinstance(error, MemoryError):
                clear_frames(error.__traceback__)  # without what they hold not even a folder can be listed
            with undisturbed():
                _remove(work)
                for folder in reversed(made):
                    if not any(folder.iterdir()):
                        folder.rmdir()
            raise


def _make(work: Path, made: list[Path]) -> None:
    """Make the folder and those above it; the latter are added to `made`, outermost first."""
    missing = [folder for folder in work.parents if not folder.exists()]
    try:
        for folder in reversed(missing):
            folder.mkdir()
            made.append(folder)
        work.mkdir()
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be made ({error.strerror}); choose another place") from None


def _put(work: Path, target: Path, force: bool) -> None:
    """Give what was written its name. What had it before, if anything, is deleted last."""
    old, gone = (target.with_name(f"{work.name}{end}") for end in (OLD, GONE))
    if not (force and os.path.lexists(target)):
        _rename(work, target)
    else:
        if not replaceable(target):
            why = "changed while it was to be replaced, and is not compress's own now"
            raise InputError(f"{target}: {why}; choose another folder")
        if exchange(work, target):
            work.rename(gone)
        else:
            target.rename(old)
            try:
                _rename(work, target)
            except BaseException:
                old.rename(target)
                raise
            old.rename(gone)
    standing.add(target)
    _sync(target.parent)
    _remove(gone)


def _rename(work: Path, target: Path) -> None:
    try:
        work.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise InputError(f"{target}: appeared while it was being written; choose another folder") from None
        raise


def to_disk(folder: Path) -> None:
    """Wait until all in `folder` is on the disk, and not in memory only."""
    for place, _, files in os.walk(folder):
        for name in files:
            if not os.path.islink(file := os.path.join(place, name)):
                _sync(file)
        _sync(place)


def _sync(path: str | Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without, mostly for folders
            raise
    finally:
        os.close(handle)


def _keep(work: Path, target: Path, inputs: list[str | Path]) -> Path:
    """Set aside what failed: under a name that is free, or that an earlier failure of ours has."""
    with suppress(OSError):  # the disk may be full; what is kept matters more
        mark(work)
    number, kept = 1, target.with_name(f"{target.name}.partial")
    while not _free(kept, inputs):
        number += 1
        kept = target.with_name(f"{target.name}.partial-{number}")
    _remove(kept)
    work.rename(kept)
    return kept


def _free(kept: Path, inputs: list[str | Path]) -> bool:
    try:
        check_target(kept, force=True, inputs=inputs)
    except InputError:
        return False
    return True


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
