"""By what the entries of Δ that stay are divided (DAREx, Deng et al. 2024, https://arxiv.org/abs/2410.09344)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

GAMMA = 0.95
"""Probability with which the bound that `row_divisors` minimises holds."""

SETTLED = 0.8
"""Share of rows whose objective has turned upward, after which the search ends: outlying rows would never settle."""

PATIENCE = 4
"""Values of q tried past the best one."""


def row_divisors(influence: Tensor, share: float, eta: float) -> Tensor:
    """q of every row, float32 `[out]`, from c_ij = Δ_ij · mean(x_j), `influence` `[out, in (+ 1 for the bias)]`.

    The q of 1 − p, 1 − p + 0.001, … below 1 that minimises |η (1 − (1−p)/q) Σ_j c_ij + η² Φ(p) Σ_j c_ij² / 4q² +
    ln(2 / (1−γ))|, Φ(p) = (1 − 2p) / ln((1−p)/p), where p is the `share` that is dropped; p = ½ takes the limit ½.
    In float64: the published code keeps the running best in fp16, where it stops early, so its `eta` does not transfer.
    """
    low = 1 - share
    grid = torch.arange(math.floor(low * 1000 + 1e-9), 999, dtype=torch.float64) * 1e-3
    grid = grid[grid > 0]
    if not len(grid):
        return torch.full((len(influence),), low)
    phi = 0.5 if abs(share - 0.5) < 1e-9 else (1 - 2 * share) / math.log((1 - share) / share)
    linear, square = influence.double().sum(1, keepdim=True), influence.double().square().sum(1, keepdim=True)
    bound = eta * (1 - low / grid) * linear + eta**2 * phi * square / (4 * grid.square()) + math.log(2 / (1 - GAMMA))
    found = bound.abs()  # [out, grid]
    turned = (found[:, 1:] >= found.cummin(1).values[:, :-1]).cummax(1).values
    enough = (turned.double().mean(0) >= SETTLED).nonzero()
    last = int(enough[0]) + 2 if len(enough) else len(grid)
    return grid[found[:, :last].argmin(1)].float()


def search(objective: Callable[[float], float], low: float, step: float = 0.1) -> tuple[float, float]:
    """The q in [low, 1] of the least `objective`, and that value: by `step`, then a tenth of it about the best.

    Both passes end after `PATIENCE` values that are no better.
    """
    known: dict[float, float] = {}

    def walk(start: float, stop: float, by: float) -> None:
        best, worse = math.inf, 0
        for i in range(math.floor((stop - start) / by + 1e-9) + 1):
            q = round(start + i * by, 9)
            if q not in known:
                known[q] = objective(q)
            best, worse = (known[q], 0) if known[q] < best else (best, worse + 1)
            if worse == PATIENCE:
                return

    walk(low, 1.0, step)
    centre = min(known, key=lambda q: known[q])
    walk(max(low, centre - 0.9 * step), min(1.0, centre + 0.9 * step), step / 10)
    q = min(known, key=lambda q: known[q])
    return q, known[q]


def without_outlier(values: list[float]) -> float:
    """Mean without the value farthest from it, where there are three or more."""
    mean = sum(values) / len(values)
    if len(values) < 3:
        return mean
    rest = sorted(values, key=lambda value: abs(value - mean))[:-1]
    return sum(rest) / len(rest)
