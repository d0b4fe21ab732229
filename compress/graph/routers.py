"""Axes that a router ranks: experts, some of which it first chooses among in groups."""

from __future__ import annotations

from collections.abc import Mapping

from compress.graph.axes import Node, find, leaves
from compress.graph.families import Family, Graph
from compress.graph.record import Recorder


def whole_axes(
    dims: Mapping[str, list[Node]], found: dict[int, Node], uses: dict[int, list[tuple[str, int]]]
) -> dict[int, list[int]]:
    """Axes that a router ranks in groups count as one again: `groups × experts of a group` in every tensor.

    Adds such products to `found` and `uses`, and returns the other nodes that are the same product, by its key.
    """
    same: dict[tuple[int, ...], int] = {}
    others: dict[int, list[int]] = {}
    for tensor, nodes in dims.items():
        for dim, node in enumerate(map(find, nodes)):
            inside = leaves(node)
            if node.form != "product" or not all(leaf.marks >= {"ranked", "routed"} for leaf in inside):
                continue
            key = same.setdefault(tuple(map(id, inside)), id(node))
            found.setdefault(key, node)
            uses.setdefault(key, []).append((tensor, dim))
            others.setdefault(key, []).append(id(node))
            node.marks |= inside[0].marks
    for parts in same:
        for leaf in parts:
            found.pop(leaf, None)
    return others


def ranks(node: Node, recorder: Recorder) -> tuple[int, int]:
    """How many equal runs of an axis lose equally many, and how few of it a router can choose from."""
    parts = leaves(node)
    picked = {id(leaf): 1 for leaf in parts}
    whole = 1
    for ranked, count in recorder.ranked:
        inside = leaves(ranked)
        if len(inside) == len(parts) and all(a is b for a, b in zip(inside, parts, strict=True)):
            whole = max(whole, count)
        elif len(inside) == 1 and id(inside[0]) in picked:
            picked[id(inside[0])] = max(picked[id(inside[0])], count)
    if len(parts) == 1:
        return 1, max(whole, picked[id(parts[0])])
    groups = parts[0]
    each = max(-(-whole // picked[id(groups)]), *(picked[id(leaf)] for leaf in parts[1:]))
    return groups.size, groups.size * each


def router(graph: Graph, family: Family) -> str:
    """The router's weight `[experts, hidden]` of a family of experts."""
    return next(m.tensor for m in family.members if len(graph.layouts[m.tensor]) == 2 and m.role == "out")


def experts_module(graph: Graph, family: Family) -> str:
    """The module that holds the stacked weights `[experts, …]` of a family of experts."""
    return next(m.tensor.rpartition(".")[0] for m in family.members if len(graph.layouts[m.tensor]) == 3)
