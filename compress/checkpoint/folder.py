"""A new folder appears whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from compress.console import detail
from compress.errors import InputError, VerifyError

ENDING = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


@contextmanager
def new_folder(target: Path, force: bool = False) -> Iterator[Path]:
    """Yields a hidden sibling of `target` to write into, which becomes `target` when the block ends.

    When the block raises, or the process is interrupted or told to end, the sibling is removed; what a VerifyError
    leaves is kept as `<target>.partial`. An existing `target` is replaced only with `force`, and only at the end.
    Raises InputError when `target` exists, cannot be written or the disk is full.
    """
    target = target.expanduser().absolute()
    check_target(target, force)
    made = _make_parents(target.parent)
    work = target.with_name(f".{target.name}.partial-{socket.gethostname()}-{os.getpid()}")
    _remove_leftovers(target)
    with _ending_raises():
        try:
            try:
                work.mkdir()
                yield work
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise InputError(f"{target}: the disk is full; make room or write elsewhere") from None
                raise
            with _undisturbed():
                _put(work, target, force)
        except VerifyError as error:
            kept = target.with_name(target.name + ".partial")
            with _undisturbed():
                _remove(kept)
                work.rename(kept)
            raise VerifyError(f"{error}\nwhat was written is kept in {kept}") from error
        except BaseException:
            with _undisturbed():
                _remove(work)
                for folder in made:
                    if not any(folder.iterdir()):
                        folder.rmdir()
            raise


def check_target(target: Path, force: bool) -> None:
    """Raise InputError when a new folder cannot be made at `target`, without making one."""
    target = target.expanduser().absolute()
    if not target.name:
        raise InputError(f"{target}: cannot be the output folder")
    if target.is_dir() and not force:
        raise InputError(f"{target}: exists; choose another folder, or pass --force to replace it")
    if target.exists() and not target.is_dir():
        raise InputError(f"{target}: is a file; choose another name for the output folder")
    there = target.parent
    while not there.exists():
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{target}: cannot be written, {there} {'is read-only' if there.is_dir() else 'is a file'}")


def _make_parents(parent: Path) -> list[Path]:
    """The folders that had to be made, innermost first."""
    missing = []
    while not parent.exists():
        missing.append(parent)
        parent = parent.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
    return missing


def _put(work: Path, target: Path, force: bool) -> None:
    old = None
    if force and target.exists():
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


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _remove_leftovers(target: Path) -> None:
    """What a run killed outright (no signal reached it) left beside the target on this machine."""
    prefix = f".{target.name}.partial-{socket.gethostname()}-"
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


Handler = Callable[[int, FrameType | None], object]


@contextmanager
def _handling(signals: list[signal.Signals], handler: Handler) -> Iterator[None]:
    """Only the main thread may set handlers, and only it is interrupted; elsewhere nothing needs doing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in signals if signal.getsignal(number) is not None}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def _ending_raises() -> Iterator[None]:
    """A polite request to end unwinds the stack, as Ctrl-C does, instead of stopping the process where it stands."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    with _handling([number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL], end):
        yield


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals wait until the block is done."""
    waiting: list[int] = []
    with _handling([signal.SIGINT, *ENDING], lambda number, frame: waiting.append(number)):
        yield
    for number in waiting[:1]:
        signal.raise_signal(number)
