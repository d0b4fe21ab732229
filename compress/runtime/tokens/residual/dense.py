"""Many to many (Token Transforming, Zeng et al. 2025, https://arxiv.org/abs/2506.05709)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from compress.registry import token_residuals
from compress.runtime.tokens.cosine import cosine
from compress.runtime.tokens.merged import Merged
from compress.runtime.tokens.selection import Selection


@token_residuals.add("dense", needs=("selection", "hidden"), paper="2506.05709")
def dense(selection: Selection, hidden: Tensor, *, temperature: Annotated[float, Field(gt=0)] = 0.1) -> Merged:
    """Each token kept becomes a mean of all tokens, weighted by softmax(cosine similarity / `temperature`).

    Near 0 it is the token alone, at large ones the mean of the group. `hidden` `[n, dim]`.
    """
    if len(selection.kept) == len(hidden):
        return Merged(selection.kept)
    return Merged(selection.kept, (cosine(hidden[selection.kept], hidden) / temperature).softmax(1))
