"""Clusters of experts that behave alike: complete linkage, within each run that a router ranks apart."""

from __future__ import annotations

import numpy as np


def merge_heights(distances: np.ndarray, runs: int = 1) -> np.ndarray:
    """How far apart what is merged next would be, as scores `[experts]`; the best of each run never goes.

    Which expert a height is given to means nothing: how many go at a height is what an allocator reads here, and
    `clusters` says which. The same threshold on several layers' heights is STUN's (Lee et al. 2024, Algorithm 1).
    """
    scores = []
    for part in _runs(distances, runs):
        heights = np.sort(_linked(part)[:, 2])
        last = heights[-1] if len(heights) else 0.0
        scores += [2 * last + 1, *heights[::-1]]
    return np.array(scores)


def clusters(distances: np.ndarray, runs: int, count: int) -> list[list[int]]:
    """The experts `[0, experts)` in `count` clusters, equally many in each run, ordered by their first members."""
    found: list[list[int]] = []
    for number, part in enumerate(_runs(distances, runs)):
        groups = {i: [i + number * len(part)] for i in range(len(part))}
        for step, (a, b, *_) in enumerate(_linked(part)):
            if len(groups) == count // runs:
                break
            groups[len(part) + step] = sorted(groups.pop(int(a)) + groups.pop(int(b)))
        found += groups.values()
    return sorted(found)


def _runs(distances: np.ndarray, runs: int) -> list[np.ndarray]:
    size = len(distances) // runs
    return [distances[i : i + size, i : i + size] for i in range(0, len(distances), size)]


def _linked(distances: np.ndarray) -> np.ndarray:
    """Merges, nearest first: (cluster, cluster, height, members). Distances may be negative."""
    from scipy.cluster.hierarchy import linkage  # slow to import, and seldom needed
    from scipy.spatial.distance import squareform

    if len(distances) < 2:
        return np.zeros((0, 4))
    apart = (distances + distances.T) / 2
    low = apart[~np.eye(len(apart), dtype=bool)].min()
    apart = apart - min(low, 0.0)
    np.fill_diagonal(apart, 0.0)
    merges = linkage(squareform(apart, checks=False), method="complete")
    merges[:, 2] += min(low, 0.0)
    return merges
