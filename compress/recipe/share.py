"""A share in a recipe: `20%` or `0.2`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from compress.recipe.mistake import mistake


def read_share(value: Any, *, others: str = "") -> float:
    """The share that `value` writes; `others` is what else may stand there. Raises a mistake."""
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*%\s*", value)):
        share = float(match[1]) / 100
    elif isinstance(value, float) and 0 <= value <= 1:
        share = value
    elif isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value < 100:
        raise mistake(f"{value:g} is no share; write a share as {value:g}% or {value / 100:g}")
    else:
        raise mistake(f"{value!r} is no share; write a share as 20% or 0.2{others}")
    if not 0 < share < 1:
        raise mistake(f"a share lies between 0% and 100%, both excluded, not {value}")
    return share


def spelled_share(share: float) -> str:
    """The share as a recipe writes it."""
    return f"{share * 100:.12g}%"


SHARE_SCHEMA: dict[str, Any] = {
    "description": "a share, 20% or 0.2",
    "format": "share",
    "anyOf": [
        {"type": "string", "pattern": r"^\s*(\d+(\.\d*)?|\.\d+)\s*%\s*$"},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    ],
}

Share = Annotated[
    float,
    BeforeValidator(read_share),
    PlainSerializer(spelled_share),
    WithJsonSchema(SHARE_SCHEMA),
]
"""A fraction between 0 and 1, both excluded. A bare 20 is refused: it could mean 20 % or twenty units."""
