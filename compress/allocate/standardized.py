"""Standardised global ranking (FLAP, An et al. 2023, https://arxiv.org/abs/2312.11983)."""

from __future__ import annotations

from compress.allocate.global_ import global_
from compress.allocate.pools import Pool
from compress.registry import allocators


@allocators.add("standardized", normalize="zscore", paper="2312.11983")
def standardized(pools: list[Pool], budget: float) -> list[int]:
    """FLAP's: scores are standardised within each layer and kind, then the lowest of the whole model go.

    Standardising happens per input channel, before channels become heads (`normalize` in `compress.score.score`).
    """
    return global_(pools, budget)
