"""Free text inside a markdown document: it is read as text, and can open neither HTML nor anything of markdown's."""

from __future__ import annotations

import re
from html import escape

SPAN = re.compile(r"(`[^`]+`)")
SPECIAL = re.compile(r"[\\`*\[\]|~]|(?<!\w)_|_(?!\w)|^[#>+=:-]")


def text(value: object) -> str:
    """On one line, what markdown or HTML would take for itself escaped; code between single backticks stays code."""
    line = " ".join(str(value).split())
    if "``" in line:  # which of them belong together is not ours to guess
        return _escaped(line)
    return "".join(part if SPAN.fullmatch(part) else _escaped(part) for part in SPAN.split(line))


def code(value: object) -> str:
    """As a code span."""
    line = " ".join(str(value).split())
    marks = "`" * (_longest(line) + 1)
    space = " " if line[:1] == "`" or line[-1:] == "`" else ""
    return f"{marks}{space}{line}{space}{marks}"


def fenced(value: object, language: str = "") -> str:
    """As a block of code, on lines of its own."""
    body = str(value).rstrip()
    marks = "`" * max(3, _longest(body) + 1)
    return f"{marks}{language}\n{body}\n{marks}"


def _longest(line: str) -> int:
    """The length of the longest run of backticks."""
    return max(map(len, re.findall("`+", line)), default=0)


def _escaped(part: str) -> str:
    return SPECIAL.sub(r"\\\g<0>", escape(part, quote=False))
