"""Exchanges between two pools that keep within the budget: one keeps a level more, the other as much less."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from compress.allocate.pools import Pool


def swapped(
    pools: Sequence[Pool],
    kept: Sequence[int],
    damage: Sequence[np.ndarray],
    fits: Callable[[list[int]], bool],
    count: int,
    levels: int,
) -> list[list[int]]:
    """The `count` exchanges that promise most by `damage` (of every pool `[bundles + 1]`, by how many it keeps).

    A level is a `levels`-th of a pool's bundles, at least one. Each pool gains in one of them at most, and loses in one
    of them at most, so that they tell different pools apart.
    """
    found: list[tuple[float, int, int, list[int]]] = []
    for up, more in enumerate(pools):
        gained = min(kept[up] + max(more.size // levels, 1), more.size)
        if gained == kept[up]:
            continue
        asked = float(more.cost[kept[up] : gained].sum())
        for down, less in enumerate(pools):
            if down == up:
                continue
            saved = np.cumsum(less.cost[less.minimum : kept[down]][::-1])
            n = int(np.searchsorted(saved, asked * (1 - 1e-12))) + 1
            if n > len(saved):
                continue
            counts = list(kept)
            counts[up], counts[down] = gained, kept[down] - n
            change = damage[up][gained] - damage[up][kept[up]] + damage[down][counts[down]] - damage[down][kept[down]]
            found.append((float(change), up, down, counts))
    chosen: list[list[int]] = []
    ups, downs = set[int](), set[int]()
    for _, up, down, counts in sorted(found, key=lambda move: move[0]):
        if len(chosen) < count and up not in ups and down not in downs and fits(counts):
            chosen.append(counts)
            ups.add(up)
            downs.add(down)
    return chosen
