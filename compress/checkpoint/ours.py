"""Which folders are this program's own: the one place that says what may be deleted to make room."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MARK = ".compress.json"
"""A hidden file in every folder that was written whole. It is neither published nor carried into another output."""

WRITER = {"written_by": "compress"}

GENERATED_FILES = {
    "report.json": {"model", "recipe", "before", "after", "environment"},
    "compare.json": {"model", "dense", "rows", "front", "environment"},
    "delta.json": {"base", "tuned", "method", "tensors", "version"},
}
"""What tells a folder without the mark, written before there was one or fetched from the hub: a file and its keys."""


def mark(folder: Path) -> None:
    """Say that `folder` is whole and this program's own."""
    (folder / MARK).write_text(json.dumps(WRITER) + "\n", encoding="utf-8")


def is_ours(folder: Path) -> bool:
    """Whether this program wrote `folder`, a folder and no link to one, and wrote it whole."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    if (found := _read(folder / MARK)) is not None:
        return found.items() >= WRITER.items()
    return any(_is_paper(folder / name, keys) for name, keys in GENERATED_FILES.items())


def replaceable(folder: Path) -> bool:
    """Whether the existing `folder` may be deleted when something takes its name: an output of ours, or empty."""
    return is_ours(folder) or (not folder.is_symlink() and folder.is_dir() and not any(folder.iterdir()))


def holds_only_ours(folder: Path) -> bool:
    """Whether all in `folder` is this program's own, as in a comparison that was interrupted."""
    return replaceable(folder) or all(path.name.startswith(".") or is_ours(path) for path in folder.iterdir())


def _is_paper(file: Path, keys: set[str]) -> bool:
    found = _read(file)
    if found is None or not found.keys() >= keys:
        return False
    return "environment" not in keys or (isinstance(found["environment"], dict) and "compress" in found["environment"])


def _read(file: Path) -> dict[str, Any] | None:
    """The JSON object in `file`, if there is one."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
