"""Branches on values that nothing tells while a model is traced: it is traced the other way too."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from compress.errors import ModelError
from compress.graph.families import Family, Graph


def both_ways(graph: Graph, places: Collection[str], other_way: Callable[[], Graph]) -> Graph:
    """`graph`, of which only what is coupled alike whichever way the branches at `places` go may lose anything.

    `other_way` traces the model with every such value answered otherwise. Where that fails, or finds other families,
    the graph is `guessed`, and more inputs are verified.
    """
    where = ", ".join(sorted(places))
    try:
        other = other_way()
    except ModelError:  # no way that a forward of these inputs can go
        return _noted(graph, f"a branch at {where} on values that are not known could be traced one way only", places)
    reason = f"how it is coupled hangs on a value, by the branch at {where}"
    families = {
        name: family if _same(family, other.families.get(name)) else replace(family, pinned=family.pinned or reason)
        for name, family in graph.families.items()
    }
    if families == graph.families:
        return _noted(graph, f"a branch at {where} on values that are not known was traced both ways, to the same end")
    changed = replace(graph, families=families)
    return _noted(changed, f"what a branch at {where} on values that are not known couples is pinned", places)


def _noted(graph: Graph, note: str, places: Collection[str] = ()) -> Graph:
    return replace(graph, notes=(*graph.notes, note), guessed=tuple(sorted(places)))


def _same(family: Family, other: Family | None) -> bool:
    """Whether both traces found the same family, free in both; one that is pinned may be whatever it likes."""
    return family.pinned is not None or family == other
