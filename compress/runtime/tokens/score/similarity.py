"""Similarity to the text (CDPruner, CATP), to the class token (Recoverable Compression), and to no other token."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from compress.registry import token_scores
from compress.runtime.tokens.cosine import cosine


@token_scores.add("text_similarity", needs=("hidden", "text"), paper="2506.10967")
def text_similarity(
    hidden: Tensor, text: Tensor, *, reduce: Literal["mean", "max"] = "mean", negative: bool = False
) -> Tensor:
    """Cosine similarity to the text tokens, their `mean` or the nearest one's (`max`).

    `negative` turns it around, as CDPruner does with the features of CLIP. `hidden` `[n, dim]`, `text` `[m, dim]` →
    `[n]`, -1 to 1; 0 where there is no text.
    """
    if not len(text):
        return hidden.new_zeros(len(hidden)).float()
    found = cosine(hidden, text)
    found = found.amax(1) if reduce == "max" else found.mean(1)
    return -found if negative else found


@token_scores.add("cls_similarity", needs=("tower_hidden", "cls"), paper="2409.01179")
def cls_similarity(tower_hidden: Tensor, cls: Tensor, *, measure: Literal["dot", "cosine"] = "dot") -> Tensor:
    """Similarity of the tower's features to its class token: the dot product, or the cosine.

    `tower_hidden` `[n, dim]`, `cls` `[dim]` → `[n]`.
    """
    if measure == "dot":
        return tower_hidden.float() @ cls.float()
    return cosine(tower_hidden, cls[None])[:, 0]


@token_scores.add("uniqueness", needs=("hidden",))
def uniqueness(hidden: Tensor, *, reduce: Literal["mean", "max"] = "mean") -> Tensor:
    """1 - cosine similarity to the other tokens, their `mean` or the nearest one's (`max`).

    `[n, dim]` → `[n]`, 0 to 2; 1 for a token alone.
    """
    n = len(hidden)
    if n == 1:
        return hidden.new_ones(1).float()
    found = cosine(hidden, hidden)
    if reduce == "max":
        return 1 - found.fill_diagonal_(-1).amax(1)
    return 1 - (found.sum(1) - found.diagonal()) / (n - 1)
