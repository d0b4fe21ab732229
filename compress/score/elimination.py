"""Groups that leave one after the other, the weights that consumed them updated by the inverse Hessian each time.

Of a consumer y = W·x with Hessian H = mean x·xᵀ + λ, the columns P of the weight W leave at a cost of
Σ over rows of w_P (H⁻¹_PP)⁻¹ w_Pᵀ, W becomes W − W_P (H⁻¹_PP)⁻¹ H⁻¹_P*, and H⁻¹ loses P by the same elimination
(ZipLM, Kurtic et al. 2023, https://arxiv.org/abs/2302.04089). The costs of groups that left one after the other add up
to that of all at once: the least mean ‖W x − W' x‖² + λ‖W − W'‖² over all W' without their columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from compress.errors import InputError

Per = Literal["input", "matrix"]
"""Whether damping is a share of each input's own mean square, or of the mean over all inputs of a matrix."""

DOUBLE = 4096
"""Inputs up to which sums are float64; the matrices of wider consumers would take too much memory and time."""

NONE = 1e-10
"""The least x² of an input, of the mean over all: one that is never active must not make the Hessian singular."""

SPARE = 0.8
"""Matrices are copied without what has left as soon as less than this share of their columns is there."""


class Consumer:
    """A weight that consumes groups and the inverse Hessian of its inputs, of the columns that are left.

    Both are held in units of each input's root mean square (with the damping). That changes no cost, and makes every
    diagonal entry of the inverse, which costs are divided by, at least 1, however far the inputs' sizes lie apart.
    """

    def __init__(
        self,
        name: str,
        weight: Tensor,
        gram: Tensor,
        units: Tensor,
        size: int,
        damping: float,
        per: Per,
        mean: Tensor | None = None,
    ) -> None:
        """`weight` `[out, in]`, `gram` `[in, in]` = mean x·xᵀ, `units` `[in]` the group of each column (-1: none, it
        stays), `size` the number of groups. λ = `damping` × x², of each input or the mean of all. With the `mean` of x
        `[in]` a bias takes part in the update: H is then the covariance + λ. Raises InputError where H has no inverse.
        """
        self.name, self.damping = name, damping
        self.scale = gram.diagonal().double().mean().item()  # costs are of H / scale; where x is always 0, they are 0
        hessian = gram.to(torch.float64 if len(gram) <= DOUBLE else torch.float32, copy=True)
        energy = hessian.diagonal() / (self.scale or 1.0)
        added = damping * (energy.clamp_min(NONE) if per == "input" else torch.ones_like(energy))
        if mean is not None:
            hessian.addr_(mean.to(hessian.dtype), mean.to(hessian.dtype), alpha=-1)
        if self.scale > 0:
            hessian /= self.scale
        hessian.diagonal().add_(added)
        self.root = hessian.diagonal().sqrt()
        hessian /= self.root
        hessian /= self.root[:, None]
        factor = self._factor(hessian)
        del hessian
        self.inverse = torch.cholesky_inverse(factor)
        self.weight = weight.to(self.root.dtype) * self.root
        self.left = torch.arange(len(units))  # the original place of each column
        self.columns = int((units == units.max()).sum())
        """How many columns a group has."""
        self._place(units, size)

    def _place(self, units: Tensor, size: int) -> None:
        """Finds the columns of each group: `where` `[size, columns of a group]`, 0 of a group that has left."""
        self.units = units
        used = units.argsort(stable=True)[int((units < 0).sum()) :]
        self.where = torch.zeros(size, self.columns, dtype=torch.long)
        self.where[units[used].unique()] = used.view(-1, self.columns)

    def _factor(self, matrices: Tensor) -> Tensor:
        """Lower Cholesky factors. Raises InputError where rounding has left a matrix that has none."""
        factor, failed = torch.linalg.cholesky_ex(matrices)
        if failed.any():
            raise InputError(
                f"damping: {self.damping:g} is too little for the inputs of {self.name}, whose Hessian cannot be "
                "inverted; take a larger one, or calibrate on more samples"
            )
        return factor

    def costs(self, groups: Tensor) -> Tensor:
        """What each of the `groups` `[n]` would cost if it left next, float64 `[n]`."""
        where = self.where[groups]
        if self.columns == 1:
            sizes = torch.linalg.vector_norm(self.weight, dim=0).square() / self.inverse.diagonal().clamp_min(1)
            return self.scale * sizes[where[:, 0]].double()
        own = self._factor(self.inverse[where[:, :, None], where[:, None, :]])
        part = self.weight.T[where]  # [n, columns, out]
        return self.scale * torch.linalg.solve_triangular(own, part, upper=False).square().sum((1, 2)).double()

    def among(self, groups: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The products of the weight's columns and the inverse, of groups of one column, float64 `[n, n]` each."""
        where = self.where[groups, 0]
        part = self.weight[:, where]
        inverse = self.inverse[where[:, None], where]
        return self.scale * (part.T @ part).double().numpy(), inverse.double().numpy()

    def leave(self, groups: Tensor) -> Tensor:
        """Removes the `groups` `[n]` in this order and updates what is left; what each of them cost, float64 `[n]`."""
        gone = self.where[groups].flatten()
        own = self._factor(self.inverse[gone[:, None], gone])
        rows = torch.linalg.solve_triangular(own, self.inverse[gone], upper=False)
        lost = torch.linalg.solve_triangular(own, self.weight[:, gone].T, upper=False)
        self.weight.addmm_(lost.T, rows, alpha=-1)
        self.inverse.addmm_(rows.T, rows, alpha=-1)
        self.weight[:, gone] = 0
        self.inverse[gone] = 0
        self.inverse[:, gone] = 0
        # A diagonal that costs are divided by; the column itself is never looked at again.
        self.inverse.diagonal()[gone] = 1
        return self.scale * lost.square().sum(1).double().view(len(groups), -1).sum(1)

    def shrink(self, alive: Tensor) -> None:
        """Forget the columns of groups that are not `alive`, bool `[size]`, if they are many."""
        here = (self.units < 0) | alive[self.units.clamp_min(0)]
        if here.float().mean() < SPARE:
            self.weight = self.weight[:, here]
            self.inverse = self.inverse[here][:, here]
            self.root, self.left = self.root[here], self.left[here]
            self._place(self.units[here], len(alive))


def eliminate(consumers: Iterable[Consumer], size: int, block: int, stop: int | None = None) -> tuple[Tensor, Tensor]:
    """The order in which groups leave, int64 `[stop]`, and what each of them cost at that moment, float64 `[stop]`.

    Always the one that costs least over all `consumers`. Only every `block` groups are all consumers updated; between,
    those 2 · `block` that cost least are, exactly, and the next ones are chosen among these, so that what can stand in
    for each other is not lost together. Groups of several columns leave one at a time. `stop`: after so many groups,
    without it all leave.
    """
    consumers = list(consumers)
    alive, stop = torch.ones(size, dtype=torch.bool), size if stop is None else stop
    if any(consumer.columns > 1 for consumer in consumers):
        block = 1
    order, costs = torch.empty(stop, dtype=torch.long), torch.zeros(stop, dtype=torch.float64)
    done = 0
    while done < stop:
        groups = alive.nonzero().flatten()
        total = torch.stack([consumer.costs(groups) for consumer in consumers]).sum(0)
        count = min(block, stop - done)
        if count == 1:
            chosen = groups[total.argmin()][None]
        else:
            near = groups[total.topk(min(2 * block, len(groups)), largest=False).indices.sort().values]
            chosen = near[_cheapest([consumer.among(near) for consumer in consumers], count)]
        order[done : done + count] = chosen
        alive[chosen] = False
        for consumer in consumers:
            costs[done : done + count] += consumer.leave(chosen)
            consumer.shrink(alive)
        done += count
    return order, costs


def _cheapest(pairs: list[tuple[np.ndarray, np.ndarray]], count: int) -> Tensor:
    """The first `count` to leave of some groups of one column; of each consumer its `among` of them, `[n, n]` twice."""
    open_, chosen = np.ones(len(pairs[0][0]), bool), []
    for _ in range(count):
        total = sum(products.diagonal() / np.maximum(inverse.diagonal(), 1) for products, inverse in pairs)
        j = int(np.argmin(np.where(open_, total, np.inf)))
        for products, inverse in pairs:
            row = inverse[j] / inverse[j, j]
            lost = np.outer(row, products[j])
            products += np.outer(row, row) * products[j, j] - lost - lost.T
            inverse -= np.outer(row, inverse[j])
        open_[j] = False
        chosen.append(j)
    return torch.tensor(chosen)


def ascending(order: Tensor, costs: Tensor) -> Tensor:
    """Scores that rank groups by the order in which they leave, float64 `[size]`: their costs, never less than before.

    A group that costs less than an earlier one (its like left, and it has taken over nothing) gets the next number
    above the earlier one's.
    """
    scores, last = torch.empty_like(costs), -np.inf
    for group, cost in zip(order.tolist(), costs.tolist(), strict=True):
        last = max(cost, float(np.nextafter(last, np.inf)))
        scores[group] = last
    return scores
