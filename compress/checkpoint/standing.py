"""What the running command has finished writing, for the message when it is interrupted."""

from __future__ import annotations

from pathlib import Path

_finished: list[Path] = []
_kept: list[str] = []


def begin() -> None:
    """A command starts; nothing is written yet."""
    _finished.clear()
    _kept.clear()


def add(path: Path) -> None:
    """`path` is whole and in its place, and stays there whatever happens to the command."""
    _kept.clear()
    if path not in _finished:
        _finished.append(path)


def keep(what: str) -> None:
    """`what` of the output that is being made stays when the command is interrupted, for --resume."""
    _kept[:] = [what]


def sentence() -> str:
    """What stands, and how to go on: `finished: a, b in DIR; …`, or that nothing was written."""
    if _kept and not _finished:
        on = "the same command with --resume goes on behind it, without it starts again from its statistics"
        return f"no output was written, but {_kept[0]} is kept: {on}"
    if not _finished:
        return "nothing was written. The same command goes on from the statistics it finished"
    folders: dict[Path, list[str]] = {}
    for path in _finished:
        folders.setdefault(path.parent, []).append(path.name)
    found = "; ".join(f"{', '.join(names)} in {folder}" for folder, names in folders.items())
    return f"finished: {found}; no more was written. With --force the same command starts again from its statistics"
