"""Clusters around density peaks (DPC-KNN, Du et al. 2016, https://doi.org/10.1016/j.knosys.2016.02.001)."""

from __future__ import annotations

import torch
from torch import Tensor


def peaks(hidden: Tensor, count: int, neighbours: int) -> tuple[Tensor, Tensor]:
    """`count` centres among tokens `[n, dim]`, the best first, and each token's `[n]` index into them.

    A token's density is exp(-mean squared distance to its `neighbours` nearest, itself one of them); a centre is dense
    and far from all that are denser. Of equally dense tokens the first counts as denser, where the released codes of
    the methods that use this draw noise. Distances are divided by √dim.
    """
    distance = _apart(hidden.float())
    nearest = distance.topk(min(neighbours, len(hidden)), largest=False).values
    density = (-nearest.square().mean(1)).exp()
    order = density.argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    denser = rank[None, :] < rank[:, None]
    apart = torch.where(denser, distance, distance.max()).min(1).values
    centres = (apart * density).argsort(descending=True, stable=True)[:count]
    member = distance[:, centres].argmin(1)
    member[centres] = torch.arange(count, device=member.device)
    return centres, member


def _apart(points: Tensor) -> Tensor:
    """Distances between points `[n, dim]` divided by √dim, `[n, n]`; 0 between equal ones."""
    centred = points - points.mean(0)  # the products then lose least
    products = centred @ centred.T
    squares = products.diagonal()
    return ((squares[:, None] + squares - 2 * products).clamp_min(0) / points.shape[1]).sqrt()
