"""What a step keeps, as masks and as the plan's lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compress.errors import InputError
from compress.graph.families import Family, Graph

Kept = dict[str, np.ndarray]

APART = 1e8
"""Far more than a head costs in comparison with a channel."""


def listed(kept: Mapping[str, np.ndarray]) -> dict[str, list[int]]:
    """Masks as the indices of what stays."""
    return {name: [int(i) for i in np.flatnonzero(mask)] for name, mask in kept.items()}


def masks(graph: Graph, kept: Mapping[str, list[int]]) -> Kept:
    """The indices of what stays as bool `[size]` per family. Raises InputError when the graph is another one."""
    found: Kept = {}
    for name, indices in kept.items():
        if name not in graph.families or (indices and max(indices) >= graph.families[name].size):
            raise InputError(f"the plan keeps groups of {name!r}, which the model does not have; plan anew")
        found[name] = np.zeros(graph.families[name].size, bool)
        found[name][indices] = True
    return found


def shares(mixes: Mapping[str, np.ndarray]) -> dict[str, list[dict[str, float]]]:
    """Matrices `[kept, size]` as the shares in each row that are not zero."""
    return {name: [{str(i): float(row[i]) for i in np.flatnonzero(row)} for row in mix] for name, mix in mixes.items()}


def mixes(graph: Graph, merged: Mapping[str, list[dict[str, Any]]]) -> Kept:
    """The shares of what is merged as matrices `[kept, size]`."""
    found: Kept = {}
    for name, rows in merged.items():
        found[name] = np.zeros((len(rows), graph.families[name].size))
        for row, parts in zip(found[name], rows, strict=True):
            for index, share in parts.items():
                row[int(index)] = share
    return found


def opposite_scores(families: Sequence[Family]) -> list[dict[str, np.ndarray]]:
    """Two sets of scores `[size]` a family, which rank the groups in it, and the families, the other way round.

    From the first family to the last they differ by `APART`: an allocator that makes the same of both does not look at
    scores.
    """
    steps = np.geomspace(1, APART, max(len(families), 2))
    rising = {family.name: steps[i] * np.linspace(1, 2, family.size) for i, family in enumerate(families)}
    return [rising, {name: 1 / scores for name, scores in rising.items()}]
