"""The tower's attention, read as that of the decoder's visual tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from compress.attention.call import SCORES, Attention
from compress.runtime.tokens.turn import Group

Queries = Literal["cls", "all", "each"]
"""The token of the whole picture; the mean of all; each of the group's own, in their order."""


@dataclass(frozen=True, eq=False)
class _Tile:
    """One stretch of patches that attend to each other: a row of a batch of attention, after `prefix` other tokens.

    `own` long `[m]`: which of the group's tokens lie in it; `patches` long `[m, each]`: their patches, as keys.
    """

    attention: Attention
    row: int
    prefix: int
    own: Tensor
    patches: Tensor


def tower_rows(calls: Sequence[Attention], group: Group, queries: Queries, *, logits: bool = False) -> Tensor:
    """What the queries pay to each of the group's tokens, the mean over its patches: float32 `[heads, queries, n]`.

    Tokens of other tiles than the query's get nothing. `calls` are those of one layer.
    """
    assert group.units is not None
    count, found = len(group.units), None
    for tile in _tiles(calls, group):
        rows = _rows(tile, queries, logits)
        if found is None:
            found = rows.new_zeros(rows.shape[0], count if queries == "each" else 1, count)
        if queries == "each":
            found[:, tile.own[:, None], tile.own] = rows
        else:
            found[:, :, tile.own] = rows
    assert found is not None
    return found


def tower_states(calls: Sequence[Attention], group: Group, which: Literal["query", "key", "value"]) -> Tensor:
    """Keys, queries or values of the group's tokens, the mean over their patches: float32 `[n, heads, size]`."""
    assert group.units is not None
    found = None
    for tile in _tiles(calls, group):
        states = getattr(tile.attention, which)[tile.row].float().transpose(0, 1)
        if found is None:
            found = states.new_zeros(len(group.units), *states.shape[1:])
        found[tile.own] = states[tile.patches].mean(1)
    assert found is not None
    return found


def tower_cls(calls: Sequence[Attention], group: Group) -> Tensor:
    """The value of the token of the whole picture, `[heads, size]`; the mean over tiles."""
    return torch.stack([tile.attention.value[tile.row, :, 0].float() for tile in _tiles(calls, group)]).mean(0)


def _tiles(calls: Sequence[Attention], group: Group) -> Iterator[_Tile]:
    units, start = group.units, 0
    assert units is not None
    for attention in calls:
        units = units.to(attention.key.device)
        length = attention.keys - group.prefix
        for row in range(len(attention.key)):
            own = ((units >= start) & (units < start + length)).all(1).nonzero()[:, 0]
            if len(own):
                yield _Tile(attention, row, group.prefix, own, units[own] - start + group.prefix)
            start += length


def _rows(tile: _Tile, queries: Queries, logits: bool) -> Tensor:
    """`[heads, queries, m]`."""
    device = tile.patches.device
    if queries == "cls":
        return _keys(tile, torch.zeros(1, dtype=torch.long, device=device), logits)
    heads, keys = tile.attention.query.shape[1], tile.attention.keys
    if queries == "all":
        every = torch.arange(keys, device=device)
        parts = every.split(max(1, SCORES // (heads * keys)))
        total = torch.stack([_lines(tile, part, logits).sum(1) for part in parts]).sum(0)[:, None]
        return total[..., tile.patches].mean(-1) / keys
    each = tile.patches.shape[1]
    parts = tile.patches.split(max(1, SCORES // (heads * keys * each)))
    found = [_keys(tile, part.reshape(-1), logits) for part in parts]
    return torch.cat([rows.unflatten(1, (-1, each)).mean(2) for rows in found], 1)


def _keys(tile: _Tile, queries: Tensor, logits: bool) -> Tensor:
    """`[heads, queries, m]` of queries by number."""
    return _lines(tile, queries, logits)[..., tile.patches].mean(-1)


def _lines(tile: _Tile, queries: Tensor, logits: bool) -> Tensor:
    """`[heads, queries, keys]` of queries by number."""
    some = tile.attention.of(tile.row, queries)
    return (some.logits() if logits else some.rows())[0]
