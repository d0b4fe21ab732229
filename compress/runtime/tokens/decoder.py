"""The decoder's attention, read for the visual tokens that are left."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from compress.attention.call import SCORES
from compress.runtime.tokens.turn import Layer, Turn

Queries = Literal["last", "text", "all", "each"] | int
"""The last token; the text behind the pictures; every token that may look; each of the group's own; a number of last
tokens."""


def text_columns(turn: Turn, row: int) -> Tensor:
    """The columns of the text behind the row's last picture, long; of all its text where none stands behind it."""
    text = turn.valid[row] & ~turn.visual[row]
    last = turn.visual[row].nonzero().max()
    behind = text & (torch.arange(turn.length, device=text.device) > last)
    return (behind if behind.any() else text).nonzero()[:, 0]


def decoder_rows(
    turn: Turn, layer: Layer, row: int, columns: Tensor, queries: Queries, *, logits: bool = False
) -> Tensor:
    """What the queries pay to the visual tokens at `columns` of a row, float32 `[heads, queries, n]`; for `all` the
    mean over those that may look, `[heads, 1, n]`."""
    slot = layer.slots.slot_of(turn.length)[row]
    keys = slot[columns]
    real = turn.valid[row].nonzero()[:, 0]
    real = real[(layer.slots.columns[row][slot[real]] == real)]
    if queries == "all":
        return _received(layer, row, slot[real], keys)
    asked = {"last": real[-1:], "each": columns, "text": text_columns(turn, row)}
    chosen = real[-queries:] if isinstance(queries, int) else asked[queries]
    some = layer.attention.of(row, slot[chosen])
    return (some.logits() if logits else some.rows())[0][..., keys]


def _received(layer: Layer, row: int, queries: Tensor, keys: Tensor) -> Tensor:
    attention = layer.attention
    total = torch.zeros(attention.query.shape[1], len(keys), device=keys.device)
    looked = torch.zeros(len(keys), device=keys.device)
    for part in queries.split(max(1, SCORES // (attention.query.shape[1] * attention.keys))):
        some = attention.of(row, part)
        seen = some.seen[0][:, keys]
        total += (some.rows()[0][..., keys] * seen).sum(1)
        looked += seen.sum(0)
    return (total / looked.clamp_min(1))[:, None]


def decoder_states(turn: Turn, layer: Layer, row: int, columns: Tensor, which: Literal["key", "value"]) -> Tensor:
    """Keys or values of visual tokens, float32 `[n, heads, size]`."""
    slots = layer.slots.slot_of(turn.length)[row, columns]
    return getattr(layer.attention, which)[row].float().transpose(0, 1)[slots]
