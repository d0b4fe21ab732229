"""What a step keeps, as masks and as the plan's lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from compress.errors import InputError
from compress.graph.families import Graph

Kept = dict[str, np.ndarray]


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
