"""A user's mistake as pydantic carries it: the text is shown as it is, behind its place in the recipe."""

from typing import Any

from pydantic_core import PydanticCustomError

from compress.registry import MISTAKE


def mistake(text: str, kind: str = MISTAKE, context: dict[str, Any] | None = None) -> PydanticCustomError:
    """An error to raise inside a validator; its place is added on the way out."""
    return PydanticCustomError(kind, text, context)  # pyright: ignore[reportArgumentType] - no literal needed here
