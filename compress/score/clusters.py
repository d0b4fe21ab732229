"""Clusters of experts that behave alike, within each run that a router ranks apart; by complete linkage or greedily."""

from __future__ import annotations

from itertools import combinations
from typing import Literal

import numpy as np

Method = Literal["linkage", "greedy"]


def merge_heights(distances: np.ndarray, runs: int = 1, method: Method = "linkage") -> np.ndarray:
    """How far apart what is merged next would be, as scores `[experts]`; the best of each run never goes.

    Which expert a height is given to means nothing: how many go at a height is what an allocator reads here, and
    `clusters` says which. One threshold on all layers' heights, as the allocator `global` has it, is how STUN (Lee et
    al. 2024) finds the number of each layer.
    """
    scores = []
    for part in _runs(distances, runs):
        heights = np.sort(_linked(part)[:, 2] if method == "linkage" else _greedy_heights(part))
        last = heights[-1] if len(heights) else 0.0
        scores += [2 * last + 1, *heights[::-1]]
    return np.array(scores)


def clusters(distances: np.ndarray, runs: int, count: int, method: Method = "linkage") -> list[list[int]]:
    """The experts `[0, experts)` in `count` clusters, equally many in each run, ordered by their first members.

    `linkage` merges the two clusters whose furthest members are nearest (complete linkage). `greedy` is the published
    code of STUN: the nearest pair of experts first, merged where each is near enough to all of the other's cluster.
    """
    found: list[list[int]] = []
    for number, part in enumerate(_runs(distances, runs)):
        groups = _linkage(part, count // runs) if method == "linkage" else _fewest(part, count // runs)
        found += [[i + number * len(part) for i in group] for group in groups]
    return sorted(found)


def greedy(distances: np.ndarray, limit: float, least: int = 1) -> list[list[int]]:
    """STUN's clusters at a threshold: distances up to `limit` count as near; merging ends at `least` clusters.

    Pairs are visited once, nearest first. A pair is merged when the second expert is near to the first one's whole
    cluster and the first to the second one's; else the two count as far from each other from then on.
    """
    size = len(distances)
    far = [sum(1 << j for j in range(size) if not distances[i, j] <= limit) for i in range(size)]  # bits of experts
    group = [1 << i for i in range(size)]
    left = size
    for i, j in _pairs(distances):
        if left <= least or distances[i, j] > limit:
            break
        if group[i] >> j & 1:
            continue
        if far[j] & group[i] or far[i] & group[j]:
            far[i] |= 1 << j
            far[j] |= 1 << i
            continue
        merged = group[i] | group[j]
        left -= 1
        for k in range(size):
            if merged >> k & 1:
                group[k] = merged
    return [[i for i in range(size) if bits >> i & 1] for bits in dict.fromkeys(group)]


def _pairs(distances: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of experts, the nearest first; of equal ones that of the first expert."""
    return sorted(combinations(range(len(distances)), 2), key=lambda pair: distances[pair])


def _greedy_heights(distances: np.ndarray) -> np.ndarray:
    """The threshold at which `greedy` leaves at most n − 1, n − 2, …, 1 clusters, `[experts − 1]`, by bisection.

    Like the published search it takes a greater threshold to leave fewer clusters, which is mostly so.
    """
    values = np.unique([distances[pair] for pair in _pairs(distances)])
    heights = np.full(max(len(distances) - 1, 0), values[-1] if len(values) else 0.0)

    def fill(low: int, high: int, above: int, below: int) -> None:
        """Between two thresholds that leave `above` and `below` clusters; where these are equal nothing happens."""
        if above <= below:
            return
        if high - low == 1:
            heights[len(distances) - above : len(distances) - below] = values[high]
            return
        middle = (low + high) // 2
        now = min(max(len(greedy(distances, values[middle])), below), above)
        fill(low, middle, above, now)
        fill(middle, high, now, below)

    if len(values):
        fill(-1, len(values) - 1, len(distances), 1)
    return heights


def _fewest(distances: np.ndarray, count: int) -> list[list[int]]:
    """`count` clusters by `greedy`, at the least threshold that leaves no more."""
    heights = _greedy_heights(distances)
    return greedy(distances, heights[len(distances) - count - 1] if count < len(distances) else -np.inf, count)


def _linkage(distances: np.ndarray, count: int) -> list[list[int]]:
    groups = {i: [i] for i in range(len(distances))}
    for step, (a, b, *_) in enumerate(_linked(distances)):
        if len(groups) == count:
            break
        groups[len(distances) + step] = sorted(groups.pop(int(a)) + groups.pop(int(b)))
    return list(groups.values())


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
