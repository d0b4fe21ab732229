"""Options as one object, as keyword arguments, or both."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypedDict

from compress.execution.run import Options

__all__ = ["OptionFields", "Options", "chosen"]


class OptionFields(TypedDict, total=False):
    """The fields of `compress.Options` as keyword arguments."""

    device: str
    force: bool
    evaluate: Literal["quick", "full", False] | None
    latency: bool
    trust_remote_code: bool
    allow_pickle: bool
    revision: str | None
    include: tuple[str, ...]
    base: str | None
    resume: bool


def chosen(options: Options | None, fields: OptionFields) -> Options:
    """The `options`, those in `fields` changed. Raises TypeError for a field that there is none of."""
    return replace(options or Options(), **fields)
