"""Uniform: the same share of every pool."""

from __future__ import annotations

import numpy as np

from compress.allocate.pools import Pool
from compress.registry import allocators


@allocators.add("uniform")
def uniform(pools: list[Pool], budget: float) -> list[int]:
    """The same share everywhere; the finest kind makes up for the rounding of the coarser ones, as AMP does.

    Pools alike (kind and bundles) lose equally many bundles, but for the last of the finest: those whose next bundle
    scores least lose one more, until the budget is met.
    """
    alike: dict[tuple[str, int], list[int]] = {}
    for i, pool in enumerate(pools):
        alike.setdefault((pool.kind, pool.size), []).append(i)
    groups = sorted(alike.values(), key=lambda group: -float(np.mean([pools[i].cost.mean() for i in group])))
    kept = [pool.size for pool in pools]
    for n, group in enumerate(groups):
        share = budget / max(sum(pools[i].cost.sum() for later in groups[n:] for i in later), 1e-300)
        last = n == len(groups) - 1
        for i in group:
            wanted = share * pools[i].size
            gone = int(np.floor(wanted + 1e-9) if last else np.floor(wanted + 0.5))
            kept[i] = int(np.clip(pools[i].size - gone, pools[i].minimum, pools[i].size))
            budget -= pools[i].cost[kept[i] :].sum()
        while last and budget > 1e-9 * max(float(pools[i].cost.sum()) for i in group):
            # One more each, the lowest score first, before any loses a second.
            open_ = [i for i in group if kept[i] > pools[i].minimum]
            if not open_:
                break
            worst = min(open_, key=lambda i: (-kept[i], pools[i].scores[kept[i] - 1]))
            kept[worst] -= 1
            budget -= pools[worst].cost[kept[worst]]
    return kept
