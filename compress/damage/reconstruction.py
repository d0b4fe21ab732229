"""A block's own error as a family loses one group after the other: that of the projections which read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from compress.graph.families import Family
from compress.graph.layout import unit_index
from compress.graph.projection import projection
from compress.model.model import Model
from compress.output_format.find import repaired_weights
from compress.score.views import Stats

Repaired = Literal["not", "mean", "fitted"]
"""What becomes of what is removed: nothing, its mean is added, or the weights on what stays are fitted to it."""

NEEDS = ("input_gram", "input_mean")
"""Statistics of what reads the family."""

RIDGE = 0.01
"""Of the mean square of the inputs: what a fit of weights is held back by."""


def consumers(source: Model, family: Family) -> list[str]:
    """The plain projections that read a family: those that an error is known of."""
    return list(repaired_weights(source, {family.name: np.zeros(family.size, bool)}))


def reconstruction(
    source: Model, family: Family, order: np.ndarray, stats: Stats, repaired: Repaired = "fitted"
) -> np.ndarray:
    """What share of its consumers' output is wrong when only the first 0, 1, … groups of `order` stay, `[size + 1]`.

    Mean squared error over mean square, per token, each consumer counting the same; 1 or less where nothing stays, 0
    where all does. Computed from the statistics of each consumer for all numbers of groups at once.
    """
    total = np.zeros(len(order) + 1)
    found = repaired_weights(source, {family.name: np.zeros(family.size, bool)})
    for name, member in found.items():
        turned = projection(source.graph, name, member.dim)
        weight = turned.matrix(source.weights.read(name).float())
        units = turned.spread(unit_index(source.graph.layouts[name][member.dim], family.name))
        place = np.full(family.size, len(order))
        place[order] = np.arange(len(order))
        ranks = np.where(units < 0, -1, place[units])  # positions that belong to no group stay
        turn = np.argsort(ranks, kind="stable")
        each = [errors_by_count(one[:, turn], own, repaired) for one, own in _matrices(weight, stats, name, turn)]
        errors = np.sum(each, axis=0)
        kept = np.searchsorted(ranks[turn], np.arange(len(order) + 1))  # positions left with so many groups
        total += errors[kept] / max(errors[0], 1e-300)
    return total / max(len(found), 1)


def errors_by_count(weight: Tensor, stats: tuple[Tensor, Tensor], repaired: Repaired) -> np.ndarray:
    """Mean squared error of W x `[out]` when x keeps only its first 0, 1, … positions, `[in + 1]`.

    `weight` `[out, in]`, `stats` mean x·xᵀ `[in, in]` and mean x `[in]`. Without a fit it is tr(W_P G_P W_Pᵀ) over what
    is removed (G without the means' product where these are added). With one, the least error of any weight on what is
    kept: for L·Lᵀ = G, the columns of W·L from there on, as L's lower right corner is the Cholesky factor of what
    of P cannot be told from the rest (the Schur complement).
    """
    w, gram, mean = weight.double(), stats[0].double(), stats[1].double()
    if repaired == "fitted":
        gram = gram.clone()
        gram.diagonal().add_(max(RIDGE * float(gram.diagonal().mean()), 1e-30))
        columns = (w @ torch.linalg.cholesky(gram)).square().sum(0)
        return _from_there_on(columns)
    if repaired == "mean":
        gram = gram - torch.outer(mean, mean)
    # What the n-th position adds to the sum over all pairs behind it.
    pairs = gram * (w.T @ w)
    behind = 2 * pairs.triu(1).sum(1) + pairs.diagonal()
    return _from_there_on(behind)


def _from_there_on(parts: Tensor) -> np.ndarray:
    """Sums of all but the first 0, 1, … parts, never below zero."""
    sums = torch.cat([parts.flip(0).cumsum(0).flip(0), parts.new_zeros(1)])
    return sums.clamp(min=0).cpu().numpy()


def _matrices(
    weight: Tensor, stats: Stats, name: str, turn: np.ndarray
) -> Iterator[tuple[Tensor, tuple[Tensor, Tensor]]]:
    """The matrices `[out, in]` of a weight, several of a grouped convolution, each with its statistics reordered."""
    index = torch.from_numpy(turn)
    gram, mean = stats["input_gram"][name], stats["input_mean"][name]
    several = weight.dim() == 3
    for one, own, middle in zip(*((x if several else x[None]) for x in (weight, gram, mean)), strict=True):
        yield one, (own[index][:, index], middle[index])
