"""Global: one ranking over all pools."""

from __future__ import annotations

from typing import Literal

import numpy as np

from compress.allocate.pools import Pool
from compress.registry import allocators


@allocators.add("global")
def global_(pools: list[Pool], budget: float, *, per: Literal["unit", "cost"] = "unit") -> list[int]:
    """The lowest scores of the whole model go, until the budget is met.

    `per: cost` ranks by saliency per saved parameter (or FLOP, or second) instead of per group: a head is then not
    spared for being larger than a channel.
    """
    owner = np.concatenate([np.full(pool.size - pool.minimum, i) for i, pool in enumerate(pools)])
    score = np.concatenate([_ranking(pool, per)[pool.minimum :] for pool in pools])
    cost = np.concatenate([pool.cost[pool.minimum :] for pool in pools])
    # A pool's ranking descends, so reversing it makes the stable sort take its last bundle first where scores tie.
    order = np.argsort(score[::-1], kind="stable")
    spent = np.cumsum(cost[::-1][order])
    count = int(np.searchsorted(spent, budget * (1 - 1e-12))) + 1 if budget > 0 else 0
    gone = np.bincount(owner[::-1][order[:count]], minlength=len(pools))
    return [pool.size - int(n) for pool, n in zip(pools, gone, strict=True)]


def _ranking(pool: Pool, per: str) -> np.ndarray:
    if per == "unit":
        return pool.scores
    # Costs within a pool may differ (latency); a bundle cannot go before a worse one, so the ranking must not rise.
    return np.minimum.accumulate(pool.scores * pool.units / np.maximum(pool.cost, 1e-300))
