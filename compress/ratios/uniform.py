"""The same share of every matrix."""

from __future__ import annotations

from compress.registry import ratios
from compress.sparse.matrices import Matrices


@ratios.add("uniform")
def uniform(matrices: Matrices, share: float) -> dict[str, float]:
    """`share` everywhere."""
    return dict.fromkeys(matrices.names, share)
