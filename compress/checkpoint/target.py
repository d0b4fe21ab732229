"""Whether a folder can be written under a name, said before any work."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path

from compress.checkpoint.ours import holds_only_ours, replaceable
from compress.errors import InputError

OLD, GONE, TRIAL, STEPS = "-old", "-gone", "-trial", "-steps"
"""Ends of hidden names: whole and set aside, about to be deleted, made to see whether a folder can be, and finished
steps of a run that may be interrupted."""

SHOWN = 200
"""Characters of a path in a message."""


def check_target(target: Path, force: bool, inputs: Iterable[str | Path] = (), *, fill: bool = False) -> None:
    """Raise InputError when a new folder cannot be made at `target`, or would take an input's place; none is left.

    `inputs` are what is read meanwhile: folders, or hub ids, which `check_apart` sees once they are opened. With
    `force` an existing folder will do that is empty or that this program wrote. With `fill` the folder is not replaced,
    but written into: it may be empty, and with `force` hold anything of ours.
    """
    target = placed(target)
    check_apart(target, inputs)
    if target.is_symlink():
        where = f"is a symbolic link to {os.readlink(target)}"
        raise InputError(f"{target}: {where}; name that folder itself, or choose another name")
    if target.is_dir():
        _check_existing(target, force, fill)
    elif target.exists():
        raise InputError(f"{target}: is a file; choose another name for the output folder")
    _try_to_write(target)


def check_apart(target: Path, inputs: Iterable[str | Path]) -> None:
    """Raise InputError when `target` is, holds or lies in a folder that is read, or holds a file linked from there."""
    target = placed(target)
    for given in inputs:
        source = Path(given).expanduser()
        if not _is_folder(source):
            continue
        if _inside(source, target):
            which = "is" if _inside(target, source) else "holds"
        elif _inside(target, source):
            which = "lies in"
        elif any(_inside(path, target) for path in source.iterdir() if path.is_symlink()):
            which = "holds files of"
        else:
            continue
        raise InputError(f"{target}: {which} {given}, which is read; choose another folder, with --force too")


def placed(target: Path) -> Path:
    """`target` as an absolute path without `..` and without links above its last part. Raises InputError when no file
    system takes the name, with what is written beside it meanwhile."""
    resolved = target
    try:
        target = target.expanduser().absolute()
        resolved = Path(os.path.realpath(target.parent)) / target.name
        if target.name == "..":
            resolved = Path(os.path.realpath(target))
        _check_names(resolved)
        os.lstat(resolved)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError, RuntimeError) as error:  # also: a null character, no home
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{_short(target)}: cannot be the output folder: {reason}") from None
    return resolved


def hidden_name(target: Path, process: int) -> str:
    """The folder that `process` on this machine writes into, beside `target`."""
    return f"{hidden_prefix(target)}{process}"


def hidden_prefix(target: Path) -> str:
    return f".{target.name}.partial-{socket.gethostname()}-"


def existing_above(path: Path) -> Path:
    """The nearest folder above `path` that exists."""
    there = path.parent
    while not there.exists():
        there = there.parent
    return there


def _check_names(target: Path) -> None:
    if not target.name:
        raise InputError(f"{target}: cannot be the output folder; name one inside it")
    there = Path(target.anchor)
    for part in target.parts[1:]:
        longest = _limit(there, "PC_NAME_MAX", 255)
        own = len(os.fsencode(part))
        if own > longest:
            raise InputError(f"{_short(target)}: a name of {own} bytes, the file system takes {longest}; shorten it")
        there = there / part if (there / part).is_dir() else there
    beside = f"{hidden_name(target, 2**22)}{TRIAL}"  # the longest process id of Linux
    over = max(
        len(os.fsencode(beside)) - _limit(there, "PC_NAME_MAX", 255),
        len(os.fsencode(target.with_name(beside))) + SHOWN - _limit(there, "PC_PATH_MAX", 4096),  # files inside
    )
    if over > 0:
        raise InputError(f"{_short(target)}: too long by {over} bytes for the file system; shorten it")


def _limit(folder: Path, name: str, usual: int) -> int:
    try:
        return os.pathconf(folder, name) if hasattr(os, "pathconf") else usual
    except OSError:
        return usual


def _check_existing(target: Path, force: bool, fill: bool) -> None:
    if fill and not any(target.iterdir()):
        return
    if not force:
        raise InputError(f"{target}: exists; choose another folder, or pass --force to replace it")
    if not (holds_only_ours if fill else replaceable)(target):
        why = "was not written by compress, so --force does not replace it"
        raise InputError(f"{target}: exists and {why}; choose another folder, or remove it yourself")
    if not fill and os.path.ismount(target):
        raise InputError(f"{target}: is a mount point, which cannot be replaced; choose a folder inside it")


def _try_to_write(target: Path) -> None:
    """Make a folder where `target` would be, and remove it: permission bits do not say what a file system allows."""
    there = existing_above(target)
    if not there.is_dir():
        raise InputError(f"{target}: cannot be written, {there} is a file")
    trial = there / f"{hidden_name(target, os.getpid())}{TRIAL}"
    try:
        trial.mkdir(exist_ok=True)
        trial.rmdir()
    except OSError as error:
        reason = "is read-only" if isinstance(error, PermissionError) else f"takes no new folder ({error.strerror})"
        raise InputError(f"{target}: cannot be written, {there} {reason}; choose another place") from None


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name too long, a null character
        return False


def _inside(inner: Path, outer: Path) -> bool:
    """Whether `inner` is the folder `outer` or in it, whatever links and spellings lead there."""
    if not outer.exists():
        return False
    real = Path(os.path.realpath(inner))
    return any(there.exists() and os.path.samefile(there, outer) for there in (real, *real.parents))


def _short(path: Path) -> str:
    text = str(path)
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}…{text[-SHOWN // 4 :]}"
