"""Erdős–Rényi kernel densities (Mocanu et al. 2018, Evci et al. 2020; Liu et al. 2022, arXiv 2202.02643)."""

from __future__ import annotations

from compress.registry import ratios
from compress.sparse.matrices import Matrices


@ratios.add("erk", paper="2202.02643")
def erk(matrices: Matrices, share: float, *, power: float = 1.0) -> dict[str, float]:
    """Density ∝ ((out + in) / (out · in))^`power`: small matrices stay denser.

    Matrices whose density would pass one stay whole, and the others make up for them.
    """
    dense: set[str] = set()
    raw = {name: (sum(shape) / (shape[0] * shape[1])) ** power for name, shape in matrices.shapes.items()}
    while True:
        rest = [name for name in matrices.names if name not in dense]
        kept = (1 - share) * matrices.total - sum(matrices.sizes[name] for name in dense)
        scale = kept / sum(raw[name] * matrices.sizes[name] for name in rest)
        over = {name for name in rest if raw[name] * scale > 1}
        if not over:
            return {name: 0.0 if name in dense else 1 - raw[name] * scale for name in matrices.names}
        dense |= over
