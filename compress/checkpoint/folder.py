"""A new folder appears whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from compress.checkpoint.ours import mark, replaceable
from compress.checkpoint.signals import ending_raises, undisturbed
from compress.checkpoint.target import check_target, hidden_name, hidden_prefix, placed
from compress.console import detail
from compress.errors import InputError, VerifyError


@contextmanager
def new_folder(target: Path, force: bool = False, inputs: Iterable[str | Path] = ()) -> Iterator[Path]:
    """Yields a hidden sibling of `target` to write into, which becomes `target` when the block ends.

    When the block raises, or the process is interrupted or told to end, the sibling is removed; what a VerifyError
    leaves is kept as `<target>.partial`. An existing `target` is replaced only with `force`, only if this program wrote
    it or it is empty, and only at the end. Raises InputError when `target` exists, has to do with the `inputs` (see
    `check_target`), cannot be written or the disk is full.
    """
    target, inputs = placed(target), list(inputs)
    check_target(target, force, inputs)
    made = _make_parents(target)
    work = target.with_name(hidden_name(target, os.getpid()))
    _remove_leftovers(target)
    with ending_raises():
        try:
            try:
                _make(work, target)
                yield work
                mark(work)
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
        except BaseException:
            with undisturbed():
                _remove(work)
                for folder in made:
                    if not any(folder.iterdir()):
                        folder.rmdir()
            raise


def _make_parents(target: Path) -> list[Path]:
    """The folders that had to be made, innermost first."""
    missing = []
    parent = target.parent
    while not parent.exists():
        missing.append(parent)
        parent = parent.parent
    for folder in reversed(missing):
        _make(folder, target)
    return missing


def _make(folder: Path, target: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}: {folder}); choose another place") from None


def _put(work: Path, target: Path, force: bool) -> None:
    old = None
    if force and target.exists():
        _check_still_ours(target)
        old = target.with_name(f"{work.name}-old")
        target.rename(old)
    try:
        work.rename(target)
    except OSError as error:
        if old is not None:
            old.rename(target)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise InputError(f"{target}: appeared while it was being written; choose another folder") from None
        raise
    if old is not None:
        _remove(old)


def _check_still_ours(target: Path) -> None:
    if not replaceable(target):
        raise InputError(f"{target}: changed while it was to be replaced, compress did not write it; choose another")


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


def _remove_leftovers(target: Path) -> None:
    """What a run killed outright (no signal reached it) left beside the target on this machine."""
    prefix = hidden_prefix(target)
    for folder in target.parent.iterdir():
        process = folder.name.removeprefix(prefix)
        if folder.name.startswith(prefix) and process.isdecimal() and not _alive(int(process)):
            detail(f"removing {folder}, which an earlier run left")
            _remove(folder)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()
