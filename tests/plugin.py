"""A distribution that is installed for the time of a test."""

from __future__ import annotations

import importlib
import textwrap
from pathlib import Path

import pytest


def install(name: str, code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution `name` 1.0 of one module that the entry-point group `compress.parts` names."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(textwrap.dedent(code))
    about = folder / f"{module}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[compress.parts]\nparts = {module}\n")
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
