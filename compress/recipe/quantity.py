"""Numbers as people write them on a command line: `350M`, `2.5e9`, `200MB`, `80%`."""

from __future__ import annotations

import re

from compress.errors import InputError

NUMBER = r"((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
THOUSANDS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}


def count(option: str, text: str) -> float:
    """`350M`, `1.5B`, `800000`: a number above zero. Raises InputError naming the option."""
    return _number(option, text, r"([kmgbt]?)", "350M, 20B or 1.5T")


def size(option: str, text: str) -> float:
    """`200MB`, `1.5G`, `500B`: bytes above zero, of which the last B is one. Raises InputError naming the option."""
    return _number(option, text, r"([kmgt]?)b?", "200MB or 1.5GB")


def fraction(option: str, text: str) -> float:
    """`30%` or `0.3`; its range is the caller's to check. Raises InputError naming the option."""
    match = re.fullmatch(rf"\s*{NUMBER}\s*(%?)\s*", text)
    if match is None:
        raise InputError(f"{option} {text}: is no share; write 30% or 0.3")
    return float(match[1]) / (100 if match[2] else 1)


def share(option: str, text: str) -> float:
    """A fraction between 0 and 1, both excluded. Raises InputError naming the option."""
    found = fraction(option, text)
    if not 0 < found < 1:
        raise InputError(f"{option} {text}: a share lies between 0 % and 100 %; write 30% or 0.3")
    return found


def _number(option: str, text: str, suffix: str, examples: str) -> float:
    match = re.fullmatch(rf"\s*{NUMBER}\s*{suffix}\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise InputError(f"{option} {text}: is no number; write it as {examples}")
    return float(match[1]) * THOUSANDS[match[2].lower()]
