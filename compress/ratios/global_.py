"""One threshold over all matrices: on the saliencies as they are, or standardised in each matrix as FLAP does."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.registry import ratios
from compress.sparse.matrices import Matrices

RANKS = 4096
"""At how many ranks a matrix's saliencies are known; its share is right to one of as many parts."""


@ratios.add("global", scores=True)
def global_(matrices: Matrices, share: float) -> dict[str, float]:
    """The `share` smallest saliencies of all matrices together: each loses what lies below one threshold."""
    return threshold(matrices, share, standardized=False)


@ratios.add("standardized", scores=True, paper="2312.11983")
def standardized(matrices: Matrices, share: float) -> dict[str, float]:
    """The same for (s − mean) / deviation of each matrix, which makes saliencies of different layers comparable."""
    return threshold(matrices, share, standardized=True)


def threshold(matrices: Matrices, share: float, *, standardized: bool) -> dict[str, float]:
    """What share of each matrix lies below the threshold that `share` of all weights lies below."""
    known = {name: _ranked(matrices.saliency(name), standardized) for name in matrices.names}
    low, high = (f(float(values[end]) for values in known.values()) for f, end in ((min, 0), (max, -1)))
    for _ in range(100):
        middle = (low + high) / 2
        gone = sum(_below(values, middle) * matrices.sizes[name] for name, values in known.items())
        low, high = (middle, high) if gone < share * matrices.total else (low, middle)
    return {name: _below(values, high) for name, values in known.items()}


def _ranked(saliency: Tensor, standardized: bool) -> Tensor:
    """Saliencies at evenly spaced ranks, the least first, float64 `[at most RANKS + 1]`."""
    values = saliency.flatten().double()
    if standardized:
        values = (values - values.mean()) / values.std().clamp_min(1e-300)
    values = values.sort().values
    ranks = torch.linspace(0, len(values) - 1, min(RANKS + 1, len(values)), dtype=torch.float64)
    return values[ranks.round().long()]


def _below(values: Tensor, limit: float) -> float:
    """The share of ranked values up to a limit."""
    return float(torch.searchsorted(values, limit, right=True)) / len(values)
