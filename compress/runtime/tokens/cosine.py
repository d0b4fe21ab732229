"""Cosine similarity."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize


def cosine(these: Tensor, those: Tensor) -> Tensor:
    """Of every row of `[a, dim]` with every row of `[b, dim]`, float32 `[a, b]`; 0 with a vector of zeros."""
    return normalize(these.float(), dim=-1) @ normalize(those.float(), dim=-1).T
