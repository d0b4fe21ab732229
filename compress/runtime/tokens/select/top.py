"""The best tokens."""

from __future__ import annotations

from torch import Tensor

from compress.registry import token_selects
from compress.runtime.tokens.selection import Selection, checked, descending


@token_selects.add("top", needs=("scores", "keep"))
def top(scores: Tensor, keep: int) -> Selection:
    """The tokens of the highest scores."""
    return Selection.of(descending(scores)[: checked(keep, len(scores))])
