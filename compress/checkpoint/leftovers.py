"""What a run that was killed outright (no signal reached it) left beside its output: put right at the next start."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from compress.checkpoint.ours import is_ours
from compress.checkpoint.target import GONE, OLD, STEPS, TRIAL, hidden_prefix
from compress.console import say, warn


def put_right(target: Path, resume: bool = False) -> None:
    """Finish or undo what a dead process of this machine did not, remove the rest, and say so; finished steps stay for
    a run that is to `resume` them.

    Where names cannot be exchanged there is a moment when `target` has been set aside and what replaces it, whole
    already, is not in its place yet: it is put there, or where it is not whole, the old one is put back.
    """
    beside = _beside(target)
    left = [path for path in beside if not path.name.endswith(STEPS)]
    for old in left:
        if old.name.endswith(OLD) and not os.path.lexists(target):
            _put_back(old, target)
    for folder in left:
        if not os.path.lexists(folder):
            continue
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            warn(f"{folder}: left by a run that was killed, cannot be removed; remove it yourself")
        elif os.path.lexists(target):
            say(f"a run was killed here: removed what it left ({folder.name}); {target} is whole")
        else:
            say(f"a run was killed here: removed its unfinished output ({folder.name}); nothing else was lost")
    for folder in () if resume else beside:
        if not folder.name.endswith(STEPS):
            continue
        shutil.rmtree(folder, ignore_errors=True)
        say(f"an interrupted run had finished steps here: removed them ({folder.name}); --resume would go on from them")


def left_steps(target: Path) -> list[Path]:
    """The finished steps of runs into `target` that are dead, each run's in a folder."""
    return [path for path in _beside(target) if path.name.endswith(STEPS)]


def _beside(target: Path) -> list[Path]:
    """What dead processes left beside `target`."""
    try:
        beside = sorted(target.parent.iterdir())
    except OSError:  # not there yet, or not to be listed
        return []
    return [path for path in beside if _left(path.name, hidden_prefix(target))]


def _left(name: str, prefix: str) -> bool:
    found = re.fullmatch(rf"{re.escape(prefix)}(\d+)({OLD}|{GONE}|{TRIAL}|{STEPS})?", name)
    return found is not None and not _alive(int(found[1]))


def _put_back(old: Path, target: Path) -> None:
    new = old.with_name(old.name.removesuffix(OLD))
    with suppress(FileNotFoundError):  # another process was faster
        if is_ours(new):
            new.rename(target)
            say(f"a run was killed here: its finished output is now in its place, {target}")
        else:
            old.rename(target)
            say(f"a run was killed here: {target} is again what it was before")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process != os.getpid()
