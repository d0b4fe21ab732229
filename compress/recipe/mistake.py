"""A user's mistake as pydantic carries it: the text is shown as it is, behind its place in the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from compress.registry import MISTAKE


def mistake(text: str, kind: str = MISTAKE, context: dict[str, Any] | None = None) -> PydanticCustomError:
    """An error to raise inside a validator; its place is added on the way out."""
    return PydanticCustomError(kind, text, context)  # pyright: ignore[reportArgumentType] - no literal needed here


def inside(place: Sequence[int | str], error: ValidationError) -> list[InitErrorDetails]:
    """The errors of what stands at `place`, to raise as errors of the whole."""
    return [
        InitErrorDetails(
            type=mistake(item["msg"], item["type"], item.get("ctx")), loc=(*place, *item["loc"]), input=item["input"]
        )
        for item in error.errors(include_url=False)
    ]
