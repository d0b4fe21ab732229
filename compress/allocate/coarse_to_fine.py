"""Coarse-to-fine allocation (CFSP, Wang et al. 2024, https://arxiv.org/abs/2409.13199)."""

from __future__ import annotations

import numpy as np

from compress.allocate.pools import Pool
from compress.registry import allocators

# The released code divides angles summed over 128 × 1024 tokens by 10⁴; ours are means.
PER_ANGLE = 128 * 1024 / 1e4


@allocators.add("coarse_to_fine", needs=("block_angle",), layerwise=True, paper="2409.13199")
def coarse_to_fine(pools: list[Pool], budget: float, block_angle: np.ndarray, *, strength: float = 1.0) -> list[int]:
    """CFSP's: blocks that turn the residual stream more keep more of every kind.

    Block l keeps g_l / mean(g) of the average share, g = σ(`strength` × 13.1 × (angle_l − mean)); where a block would
    keep more than everything, all deviations from the average shrink. `block_angle` `[blocks]`: mean arccos/π.
    """
    layers = [pool.layers[0] if pool.layers else None for pool in pools]
    angle = np.asarray(block_angle, float)
    used = np.array(sorted({layer for layer in layers if layer is not None}), int)
    x = PER_ANGLE * (angle - angle[used].mean()) if len(used) else angle
    gate = 1 / (1 + np.exp(-strength * x))
    mean = gate[used].mean() if len(used) else 1.0
    share = 1 - budget / sum(pool.cost.sum() for pool in pools)  # kept on average
    if len(used) and share > 0 and gate[used].max() / mean * share >= 1 and gate[used].max() > mean:
        gate = mean + (gate - mean) * min(1.0, mean * (1 / share - 1) / (gate[used].max() - mean) / 1.05)
    wanted = [
        pool.size * (1 - min(1.0, share if layer is None else gate[layer] / mean * share))
        for pool, layer in zip(pools, layers, strict=True)
    ]
    gone = [min(int(w + 1e-9), pool.size - pool.minimum) for w, pool in zip(wanted, pools, strict=True)]
    left = budget - sum(pool.cost[pool.size - n :].sum() for n, pool in zip(gone, pools, strict=True))
    # The largest remainders lose one more, then the next, until the budget is met; minima may need several rounds.
    while left > 1e-9 * abs(budget):
        open_ = [i for i, pool in enumerate(pools) if gone[i] < pool.size - pool.minimum]
        if not open_:
            break
        i = max(open_, key=lambda i: wanted[i] - gone[i])
        gone[i] += 1
        left -= pools[i].cost[pools[i].size - gone[i]]
    return [pool.size - n for n, pool in zip(gone, pools, strict=True)]
