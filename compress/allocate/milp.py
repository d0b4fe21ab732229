"""Exact allocation as an integer programme (scipy.optimize.milp, which is HiGHS)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from compress.allocate.pools import Pool
from compress.errors import BudgetError
from compress.registry import allocators


@dataclass
class Chain:
    """Bundles in the order in which they go, the first before the second: of one pool, or of all with this cost.

    `value`, `cost`, `owner` (the pool) are `[bundles]`. Between `low` and `high` lies the number that goes.
    """

    value: np.ndarray
    cost: np.ndarray
    owner: np.ndarray
    low: int = 0
    high: int = 0

    @property
    def even(self) -> bool:
        """One cost and values that rise: then only the number is a question."""
        return bool((self.cost == self.cost[0]).all() and (np.diff(self.value) >= 0).all())

    def sums(self, values: np.ndarray) -> np.ndarray:
        """What has gone after 0, 1, … bundles, `[bundles + 1]`."""
        return np.concatenate([[0.0], np.cumsum(values)])


@allocators.add("milp")
def exact(pools: list[Pool], budget: float, *, seconds: float = 60.0) -> list[int]:
    """The kept counts with the greatest total score of all that save the budget; proven, not approximated.

    Scores below zero are shifted in proportion to cost, which changes no comparison at equal saving, so that removing
    more than asked never pays. The solver is given what a Lagrangian bound and a greedy solution leave open: counts
    that cannot be part of an optimum are cut off before. Raises BudgetError when `seconds` do not suffice.
    """
    chains = _chains(pools)
    if sum(chain.cost.sum() for chain in chains) <= budget:
        return [pool.minimum for pool in pools]
    unit = _unit(chains)
    # Whole costs: the budget rounded up to their common divisor loses no solution and closes much of the gap.
    need = math.ceil(budget / unit - 1e-9) * unit if unit else budget
    counts = _narrow(chains, need)
    if any(chain.low < chain.high for chain in chains):
        counts = _solve(chains, need, unit, seconds)
    gone = np.zeros(len(pools), int)
    for chain, count in zip(chains, counts, strict=True):
        gone += np.bincount(chain.owner[:count], minlength=len(pools))
    return [pool.size - int(n) for pool, n in zip(pools, gone, strict=True)]


def _chains(pools: list[Pool]) -> list[Chain]:
    values = [(pool.scores * pool.units)[pool.minimum :][::-1] for pool in pools]
    costs = [pool.cost[pool.minimum :][::-1] for pool in pools]
    shift = max(
        (float(np.max(-v / np.maximum(c, 1e-300))) for v, c in zip(values, costs, strict=True) if len(v)), default=0
    )
    by_cost: dict[object, list[Chain]] = {}
    for i, (value, cost) in enumerate(zip(values, costs, strict=True)):
        if len(value):
            chain = Chain(value + max(shift, 0.0) * cost, cost, np.full(len(value), i))
            by_cost.setdefault(float(cost[0]) if chain.even else (i,), []).append(chain)
    merged = []
    for same in by_cost.values():
        value, cost, owner = (np.concatenate([getattr(c, part) for c in same]) for part in ("value", "cost", "owner"))
        order = np.argsort(value, kind="stable") if len(same) > 1 else np.arange(len(value))
        merged.append(Chain(value[order], cost[order], owner[order]))
    return merged


def _unit(chains: list[Chain]) -> int:
    """Greatest common divisor of whole costs, 0 where they are not whole."""
    cost = np.unique(np.concatenate([chain.cost for chain in chains]))
    if (cost != np.rint(cost)).any() or cost.max() > 2**52:
        return 0
    return math.gcd(*map(int, cost))


def _narrow(chains: list[Chain], need: float) -> list[int]:
    """Sets `low` and `high` of every chain; returns the greedy solution.

    With p the price of the budget, p·need + Σ min (lost value − p·saving) bounds every solution from below, and what
    a count adds to it may not exceed the gap to the greedy one.
    """
    price = _price(chains, need)
    reduced = [chain.sums(chain.value - price * chain.cost) for chain in chains]
    start = [int(np.argmin(r)) for r in reduced]
    finest = min(range(len(chains)), key=lambda i: float(chains[i].cost.mean()))
    best, least = [len(chain.value) for chain in chains], math.inf
    trials = [{i: step} for i in range(len(chains)) for step in range(-3, 4)]
    for fill in {finest, *range(min(len(chains), 8))}:
        for trial in trials:
            counts = [int(np.clip(n + trial.get(i, 0), 0, len(chains[i].value))) for i, n in enumerate(start)]
            saved = [float(chain.cost[:n].sum()) for chain, n in zip(chains, counts, strict=True)]
            sums = chains[fill].sums(chains[fill].cost)
            counts[fill] = int(np.searchsorted(sums, (need - sum(saved) + saved[fill]) * (1 - 1e-12)))
            if counts[fill] < len(sums):
                lost = sum(float(chain.value[:n].sum()) for chain, n in zip(chains, counts, strict=True))
                best, least = (counts, lost) if lost < least else (best, least)
    least = min(least, sum(float(chain.value.sum()) for chain in chains))
    gap = least - (price * need + sum(float(r.min()) for r in reduced)) + 1e-9 * max(abs(least), 1e-300)
    for chain, r in zip(chains, reduced, strict=True):
        possible = np.flatnonzero(r - r.min() <= gap)
        chain.low, chain.high = int(possible[0]), int(possible[-1])
    return best


def _price(chains: list[Chain], need: float) -> float:
    """Value per cost of the bundle that meets the budget when the cheapest go first."""
    value, cost = (np.concatenate([getattr(chain, part) for chain in chains]) for part in ("value", "cost"))
    ratio = value / np.maximum(cost, 1e-300)
    order = np.argsort(ratio, kind="stable")
    place = int(np.searchsorted(np.cumsum(cost[order]), need * (1 - 1e-12)))
    return float(ratio[order[min(place, len(order) - 1)]])


def _solve(chains: list[Chain], need: float, unit: int, seconds: float) -> list[int]:
    """How many bundles of each chain go.

    A share in [0, 1] per open bundle and a whole number per chain, their sum. Where values rise within a chain, a
    whole number fills the shares in order by itself; elsewhere the shares are whole, each at most the one before.
    """
    from scipy import sparse  # both are slow to import, and few runs get here
    from scipy.optimize import Bounds, LinearConstraint, milp

    value = np.concatenate([chain.value[chain.low : chain.high] for chain in chains])
    cost = np.concatenate([chain.cost[chain.low : chain.high] for chain in chains])
    owner = np.repeat(np.arange(len(chains)), [chain.high - chain.low for chain in chains])
    even = np.array([chain.even for chain in chains])
    n, k = len(value), len(chains)
    total = sparse.csr_array((np.ones(n), (owner, np.arange(n))), shape=(k, n))
    # Costs stand at the whole numbers of even chains and at the shares of the others. Scaled, so that the solver's
    # absolute tolerances mean something; half a unit is none of whole costs.
    scale = unit or float(cost.max()) or 1.0
    left = (need - sum(float(chain.cost[: chain.low].sum()) for chain in chains)) / scale - (0.5 if unit else 1e-9)
    each = np.array([float(chain.cost[0]) for chain in chains])
    spent = np.concatenate([np.where(even[owner], 0.0, cost), np.where(even, each, 0.0)]) / scale
    pairs = np.flatnonzero((owner[1:] == owner[:-1]) & ~even[owner[1:]])
    rows = np.arange(len(pairs))
    steps = (np.repeat([1.0, -1.0], len(pairs)), (np.tile(rows, 2), np.concatenate([pairs + 1, pairs])))
    result = milp(
        np.concatenate([value / max(float(np.abs(value).max()), 1e-300), np.zeros(k)]),
        integrality=np.concatenate([~even[owner], np.ones(k, bool)]).astype(int),
        bounds=Bounds(0, np.concatenate([np.ones(n), [chain.high - chain.low for chain in chains]])),  # pyright: ignore[reportArgumentType] - arrays are fine
        constraints=[
            LinearConstraint(sparse.hstack([total, -sparse.eye_array(k)]).tocsr(), 0, 0),
            LinearConstraint(sparse.csr_array(spent[None]), left, np.inf),
            *([LinearConstraint(sparse.csr_array(steps, shape=(len(pairs), n + k)), -np.inf, 0)] if len(pairs) else []),
        ],
        options={"time_limit": seconds, "mip_rel_gap": 0.0},
    )
    if result.status != 0 or result.x is None:
        raise BudgetError(
            f"milp: no proven optimum in {seconds:g} s over {n} open bundles; give it more seconds, "
            "a larger `round:`, or `widths: uniform`"
        )
    return [chain.low + int(count) for chain, count in zip(chains, np.rint(result.x[n:]), strict=True)]
