"""Cutting experts: stored one by one or stacked, dropped or put together of several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compress.graph.families import Graph
from compress.graph.layout import Axis, Layout, unit_index
from compress.graph.names import Names
from compress.model.disk_names import Piece
from compress.model.model import Model
from compress.surgery.take import take

Kept = Mapping[str, np.ndarray]
Mixes = Mapping[str, np.ndarray]
"""Family of experts → matrix `[kept, experts]`: the shares of the experts that each one that stays is made of."""
Orders = Mapping[str, np.ndarray]
"""Family of experts → which inner channel of each expert takes each place in a mix, int64 `[experts, inner]`."""
Moves = tuple[tuple[int, np.ndarray], ...]
"""Dimensions of a tensor and the positions that take each place there."""


@dataclass(frozen=True)
class Part:
    """One stored tensor of the result: `parts` are the stored tensors, reordered, that it is the weighted sum of."""

    name: str
    shape: tuple[int, ...]
    parts: tuple[tuple[str, float, Moves], ...]
    keep: tuple[np.ndarray | None, ...]  # per dimension the positions that stay

    def read(self, source: Model) -> Tensor:
        """The tensor as it is written."""
        tensor = _sum([(_moved(source.weights.read_stored(disk), moves), share) for disk, share, moves in self.parts])
        for dim, keep in enumerate(self.keep):
            if keep is not None:
                tensor = take(tensor, dim, keep)
        return tensor


def parts_out(
    source: Model, kept: Kept, mixes: Mixes, names: Names, name: str, orders: Orders | None = None
) -> dict[str, Part]:
    """Of a tensor that is stored in pieces: the input's name on disk → what takes its place.

    Pieces of experts that go have no entry; the others are numbered anew.
    """
    graph, pieces = source.graph, source.weights.pieces(name)
    masks = graph.masks(name, kept)
    size = source.weights.current(name).shape
    experts = np.flatnonzero(masks.get(0, np.ones(size[0], bool)))
    mix = mix_of(graph, name, 0, mixes)
    disks = {(piece.index, piece.start): piece.disk for piece in pieces}
    found = {}
    for piece in pieces:
        place = np.flatnonzero(experts == piece.index)
        if not len(place):
            continue
        number = int(place[0])
        shares = (
            {piece.index: 1.0} if mix is None else {int(i): float(mix[number, i]) for i in np.flatnonzero(mix[number])}
        )
        keep = tuple(_positions(masks.get(dim), piece, dim) for dim in range(1, len(size)))
        full = [piece.stop - piece.start if dim == piece.dim else size[dim] for dim in range(1, len(size))]
        found[piece.disk] = Part(
            names.on_disk(name, piece.renumbered(number)),
            tuple(n if own is None else len(own) for n, own in zip(full, keep, strict=True)),
            tuple(
                (disks[index, piece.start], share, moves(graph, name, 0, orders, index, piece))
                for index, share in shares.items()
            ),
            keep,
        )
    return found


def mix_of(graph: Graph, name: str, dim: int, mixes: Mixes) -> np.ndarray | None:
    """The matrix that dimension `dim` of a tensor is multiplied by, None where slices are only dropped."""
    layout = graph.layouts[name][dim]
    return mixes.get(layout.family) if isinstance(layout, Axis) else None


def mixed(tensor: Tensor, dim: int, mix: np.ndarray, reorder: Callable[[int], Moves] = lambda expert: ()) -> Tensor:
    """The slices along `dim`, reordered, put together by `mix` `[kept, experts]`; one result in memory at a time."""
    rows = [
        _sum([(_moved(tensor.select(dim, int(i)), reorder(int(i))), float(row[i])) for i in np.flatnonzero(row)])
        for row in mix
    ]
    return torch.stack(rows, dim)


def inner_family(graph: Graph, experts: str) -> str | None:
    """The channels inside the experts of a family, None where nothing else runs along their tensors."""
    tensors = {member.tensor for member in graph.families[experts].members}
    inside = (family for family in graph.families.values() if family.kind == "channels")
    return next((f.name for f in inside if {member.tensor for member in f.members} <= tensors), None)


def positions(layout: Layout, family: str) -> np.ndarray:
    """Where each group of a family lies in a dimension, int64 `[size, times it occurs]`; empty where it does not."""
    units = unit_index(layout, family)
    size = int(units.max()) + 1
    if not size:
        return np.empty((0, 0), int)
    return np.argsort(units, kind="stable")[np.count_nonzero(units < 0) :].reshape(size, -1)


def moves(graph: Graph, name: str, dim: int, orders: Orders | None, expert: int, piece: Piece | None = None) -> Moves:
    """How one expert's slice of a tensor along `dim`, or a stored piece of it, is reordered before it is mixed."""
    layout = graph.layouts[name][dim]
    family = layout.family if isinstance(layout, Axis) else ""
    if orders is None or family not in orders:
        return ()
    inner, found = inner_family(graph, family), []
    for other, layout in enumerate(graph.layouts[name]):
        places = positions(layout, inner) if inner is not None and other != dim else np.empty((0, 0), int)
        if places.size:
            index = np.arange(layout.size)
            index[places] = places[orders[family][expert]]
            if piece is not None and other == piece.dim:
                index = index[piece.start : piece.stop] - piece.start
            found.append((other - (other > dim), index))
    return tuple(found)


def mixed_tensors(graph: Graph, mixes: Mixes) -> Iterator[str]:
    """Tensors that are put together of several experts'."""
    for name in mixes:
        yield from (member.tensor for member in graph.families[name].members)


def _moved(tensor: Tensor, moves: Moves) -> Tensor:
    for dim, index in moves:
        tensor = take(tensor, dim, index)
    return tensor


def _sum(parts: list[tuple[Tensor, float]]) -> Tensor:
    """Σ share · tensor, added up in float32; a single whole one stays as it is, bit for bit."""
    (first, share), *rest = parts
    if not rest and share == 1.0:
        return first
    total = first.float() * share
    for tensor, other in rest:
        total += tensor.float() * other
    return total.to(first.dtype)


def _positions(mask: np.ndarray | None, piece: Piece, dim: int) -> np.ndarray | None:
    if mask is None:
        return None
    return np.flatnonzero(mask[piece.start : piece.stop] if dim == piece.dim else mask)
