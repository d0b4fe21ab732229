"""The inner channels of experts that are merged, put in one order: weight matching (Ainsworth et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from torch import Tensor

from compress.model.model import Model
from compress.surgery.experts import inner_family, positions
from compress.surgery.take import take


def align(source: Model, kept: Mapping[str, np.ndarray], mixes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Family of experts → for each expert, which of its inner channels takes each place, int64 `[experts, inner]`.

    Two experts that compute the same may have their channels in any order, and their average then computes something
    else. Each expert's channels are assigned to those of the expert that it is merged into, such that the inner
    products of their weights add up to most (arXiv 2209.04836, §3.2); the cost is cubic in the inner width. The
    experts of one layer are in memory at a time.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, and seldom needed

    found = {}
    for name, mix in mixes.items():
        inner = inner_family(source.graph, name)
        if inner is None:
            continue
        stacks = {tensor: source.weights.read(tensor) for tensor in _tensors(source, name, inner)}
        orders = np.tile(np.arange(source.graph.families[inner].size), (source.graph.families[name].size, 1))
        for reference, row in zip(np.flatnonzero(kept[name]), mix, strict=True):
            own = list(_channels(source, inner, stacks, int(reference)))
            for expert in np.flatnonzero(row):
                if expert != reference:
                    other = _channels(source, inner, stacks, int(expert))
                    products = sum((a @ b.T).double().numpy() for a, b in zip(own, other, strict=True))
                    orders[expert] = linear_sum_assignment(products, maximize=True)[1]
        found[name] = orders
    return found


def _tensors(source: Model, family: str, inner: str) -> list[str]:
    """The stacked tensors that the inner channels run along."""
    stacked = {member.tensor for member in source.graph.families[family].members}
    return [name for name in stacked if name in {member.tensor for member in source.graph.families[inner].members}]


def _channels(source: Model, inner: str, stacks: Mapping[str, Tensor], expert: int) -> Iterator[Tensor]:
    """An expert's weights by inner channel, `[inner, weights]`, of every tensor and every part of a fused one."""
    for name, stack in stacks.items():
        for dim, layout in enumerate(source.graph.layouts[name][1:]):
            for places in positions(layout, inner).T:
                yield take(stack[expert].float(), dim, places).movedim(dim, 0).reshape(len(places), -1)
