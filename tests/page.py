"""docs/extending.md: its sections, and their examples as modules outside the package."""

from __future__ import annotations

import re
import sys
import types
from itertools import pairwise
from pathlib import Path

import pytest

from compress import registry

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text()
TITLES = re.findall(r"^## (.*)$", PAGE, re.M)


def blocks(title: str, language: str) -> list[str]:
    """The blocks of one language in the section of that heading."""
    headings = [match.start() for match in re.finditer(r"^## ", PAGE, re.M)] + [len(PAGE)]
    (text,) = (PAGE[a:b] for a, b in pairwise(headings) if PAGE[a:b].startswith(f"## {title}\n"))
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def learn(title: str, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Runs the Python of a section as a module of its own; what it registers is forgotten after the test."""
    for parts in registry.registries().values():
        parts.names()  # the package's own are there before
        monkeypatch.setattr(parts, "_entries", dict(parts._entries))
    module = types.ModuleType(f"example_{TITLES.index(title)}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec("".join(blocks(title, "python")), vars(module))
    return module
