"""What the removal of a group saves: parameters, FLOPs, or anything that can be measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Literal

import numpy as np

from compress.allocate.pools import Price
from compress.graph.families import Family, Graph
from compress.graph.layout import Layout, families, kept_size

Kept = Mapping[str, np.ndarray]
Measure = Literal["params", "flops"] | Callable[[Kept], float]
POINTS = 17  # per family, of a curve that is not known to be straight


def measured(graph: Graph, measure: Measure, sequence: int) -> Callable[[Kept], float]:
    """The measure of the model that is left, as a function of the kept groups."""
    if measure == "params":
        return lambda kept: float(graph.parameters(kept))
    if measure == "flops":
        return lambda kept: float(graph.flops(kept, sequence=sequence))
    if callable(measure):
        return measure
    raise ValueError(f"measure is params, flops or a function, not {measure!r}")


def prices(graph: Graph, measure: Measure, already: Kept, sequence: int) -> Price:
    """How much each group of a family saves, all other families staying as in `already`."""
    if callable(measure):
        return lambda family, order: _curve(measure, already, family, order)
    gone = graph.removed_blocks(already)
    sizes = {name: int(mask.sum()) for name, mask in already.items()} | {"batch": 1, "sequence": sequence}
    terms: list[tuple[tuple[Layout, ...], int, int | None]]
    if measure == "params":
        terms = [(dims, 1, graph.block_of(tensor)) for tensor, dims in graph.layouts.items()]
    else:
        terms = [(work.dims, 2 * work.repeats, work.block) for work in graph.works]
    savings, blocks = _savings((term for term in terms if term[2] not in gone or term[2] is None), sizes)
    place = {name: i for i, name in enumerate(graph.blocks)}

    def price(family: Family, order: np.ndarray) -> np.ndarray:
        if family.kind == "layers":
            return np.array([blocks.get(place[family.blocks[i]], 0.0) for i in order])
        return np.full(len(order), savings.get(family.name, 0.0) / max(sizes.get(family.name, family.size), 1))

    return price


def _savings(
    terms: Iterable[tuple[tuple[Layout, ...], int, int | None]], sizes: Mapping[str, int]
) -> tuple[dict[str, float], dict[int, float]]:
    """What goes when all of a family goes, and what each block weighs; one pass over the tensors or products."""
    savings: dict[str, float] = {}
    blocks: dict[int, float] = {}
    for dims, factor, block in terms:
        full = [kept_size(dim, sizes) for dim in dims]
        whole = factor * prod(full)
        if block is not None:
            blocks[block] = blocks.get(block, 0.0) + whole
        for name in {name for dim in dims for name in families(dim)}:
            without = {**sizes, name: 0}
            rest = [kept_size(dim, without) if name in families(dim) else n for dim, n in zip(dims, full, strict=True)]
            savings[name] = savings.get(name, 0.0) + whole - factor * prod(rest)
    return savings, blocks


def _curve(measure: Callable[[Kept], float], already: Kept, family: Family, order: np.ndarray) -> np.ndarray:
    """Savings by rank from the measure at a few counts, straight in between; a count is never dearer than a larger."""
    if family.kind == "layers":
        whole, savings = measure(already), []
        for i in order:
            mask = already.get(family.name, np.ones(family.size, bool)).copy()
            mask[i] = False
            savings.append(whole - measure({**already, family.name: mask}))
        return np.maximum(savings, 0.0)
    counts = np.unique(np.linspace(1, len(order), min(POINTS, len(order))).round().astype(int))
    values = []
    for count in counts:
        mask = np.zeros(family.size, bool)
        mask[order[:count]] = True
        values.append(measure({**already, family.name: mask}))
    line = np.interp(np.arange(1, len(order) + 1), counts, np.maximum.accumulate(values))
    # The last group never goes, so its price does not matter.
    return np.diff(line, prepend=line[0])
