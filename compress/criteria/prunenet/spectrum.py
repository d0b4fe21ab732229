"""How much of a matrix's spectrum some of its rows keep: the reward of PruneNet (arXiv 2501.15296)."""

from __future__ import annotations

import torch
from torch import Tensor

PERFECT = 99999.0
"""The reward where the spectra do not differ at all, as the published code has it."""


def singular_values(weight: Tensor) -> Tensor:
    """Of `weight` `[rows, columns]`, ascending float64 `[min(rows, columns)]`.

    They are the roots of the eigenvalues of the smaller Gram matrix, which takes half the time of a decomposition of
    the weight itself; float64, as those close to zero lose half of their digits on the way.
    """
    wide = weight.double()
    gram = wide @ wide.T if wide.shape[0] < wide.shape[1] else wide.T @ wide
    return torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()


def ks_distance(one: Tensor, other: Tensor) -> float:
    """The Kolmogorov-Smirnov statistic of two samples `[n]` and `[m]`, both ascending: the largest distance of their
    distribution functions, in [0, 1]."""
    places = torch.cat([one, other])
    below = [torch.searchsorted(values, places, right=True) / len(values) for values in (one, other)]
    return float((below[0] - below[1]).abs().max())


def reward(distance: float) -> float:
    """What keeping rows earns at this distance of the spectra."""
    return 1 / distance if distance > 0 else PERFECT
