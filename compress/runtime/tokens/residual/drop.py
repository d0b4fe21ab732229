"""Dropping."""

from __future__ import annotations

from compress.registry import token_residuals
from compress.runtime.tokens.merged import Merged
from compress.runtime.tokens.selection import Selection


@token_residuals.add("drop", needs=("selection",))
def drop(selection: Selection) -> Merged:
    """Tokens that are not selected are lost."""
    return Merged(selection.kept)
