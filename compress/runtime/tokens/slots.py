"""A batch of prompts of which some tokens went: who stands where, and what else of a layer's arguments follows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

FILLER = -1


@dataclass(frozen=True, eq=False)
class Slots:
    """`columns` long `[batch, slots]`: the column of the prompts that each slot of a hidden state holds, in ascending
    order; rows that have fewer are filled up from the left, with -1."""

    columns: Tensor

    @classmethod
    def all(cls, batch: int, length: int, device: Any) -> Slots:
        """Every column in its place."""
        return cls(torch.arange(length, device=device).expand(batch, length))

    @property
    def filler(self) -> Tensor:
        """Which slots hold nothing, bool `[batch, slots]`."""
        return self.columns < 0

    def less(self, alive: Tensor) -> tuple[Slots, Tensor]:
        """Only the columns that are `alive`, bool `[batch, length]`; and the slots they had, long `[batch, fewer]`."""
        stay = alive.gather(1, self.columns.clamp_min(0)) & ~self.filler
        counts = stay.sum(1)
        most = int(counts.max())
        # A stable sort puts those that stay last, in their order; what is cut off in front does not stay, but for the
        # slots that fill a shorter row.
        index = stay.byte().argsort(dim=1, stable=True)[:, -most:]
        empty = torch.arange(most, device=index.device) < (most - counts)[:, None]
        return Slots(self.columns.gather(1, index).masked_fill(empty, FILLER)), index.masked_fill(empty, 0)

    def slot_of(self, length: int) -> Tensor:
        """Column → its slot, long `[batch, length]`; meaningless for columns that went."""
        batch, slots = self.columns.shape
        found = torch.zeros(batch, length + 1, dtype=torch.long, device=self.columns.device)
        places = torch.arange(slots, device=found.device).expand(batch, slots)
        found.scatter_(1, self.columns.masked_fill(self.filler, length), places)
        return found[:, :length]

    def before(self, length: int) -> Tensor:
        """Column → the slot of the last column up to it that is there, long `[batch, length]`."""
        there = torch.zeros(len(self.columns), length + 1, dtype=torch.long, device=self.columns.device)
        there.scatter_(1, self.columns.masked_fill(self.filler, length), 1)
        return (self.filler.sum(1, keepdim=True) + there[:, :length].cumsum(1) - 1).clamp_min(0)

    def repeated(self, batch: int) -> Slots:
        """For a batch in which each row stands several times, one after the other, as beams do."""
        times = batch // len(self.columns)
        return self if times == 1 else Slots(self.columns.repeat_interleave(times, 0))


def taken(tensor: Tensor, index: Tensor, dim: int) -> Tensor:
    """Of each row of the batch its own `index` `[batch, some]` along `dim`; the batch is the first dimension, in front
    of which `[parts, batch, length]` of positions has another. A batch of one is every row's."""
    dim = dim % tensor.dim()
    first = tensor.dim() - 2 if tensor.dim() == 3 and dim == 2 else 0
    shape = [1] * tensor.dim()
    shape[first], shape[dim] = index.shape
    wanted = list(tensor.shape)
    wanted[first], wanted[dim] = index.shape
    whole = list(tensor.shape)
    whole[first] = len(index)
    return tensor.expand(whole).gather(dim, index.view(shape).expand(wanted))


def masked(mask: Any, index: Tensor, filler: Tensor, queries: Tensor | None, *, flash: bool = False) -> Any:
    """An attention mask for the slots `index` `[batch, keys]` of those it was made for, of which `filler` are hidden.

    `queries` are the slots of the queries, None where they are all still there. `mask` is as transformers has it: None,
    `[batch, keys]`, `[batch, 1, queries, keys]` of bools or of what is added, or one of these by kind of layer.
    """
    if isinstance(mask, dict):
        return {kind: masked(one, index, filler, queries, flash=flash) for kind, one in mask.items()}
    if mask is None:
        if not filler.any():
            return None
        if flash:
            return (~filler).long()
        count = index.shape[1]
        rows = count if queries is None else queries.shape[1]
        causal = torch.ones(count, count, dtype=torch.bool, device=index.device).tril()[-rows:]
        return causal & ~filler[:, None, None]
    if mask.dim() == 2:
        return taken(mask, index, 1).masked_fill(filler, 0)
    if queries is not None:
        mask = _lines(mask, queries)
    found = _keys(mask, index)
    hidden = False if found.dtype == torch.bool else torch.finfo(found.dtype).min
    return found.masked_fill(filler[:, None, None], hidden)


def windowed(mask: Tensor | None, queries: Tensor, keys: Tensor, window: int) -> Tensor | None:
    """A mask that also hides keys `window` columns or more before the query, tokens that went being counted.

    `queries` `[batch, queries]` and `keys` `[batch, keys]` are columns; `mask` as for `masked`, with heads if any.
    """
    far = beyond(queries, keys, window)
    if mask is None:
        return (queries[:, None, :, None] >= keys[:, None, None]) & ~far if far.any() else None
    return mask.masked_fill(far, False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min)


def beyond(queries: Tensor, keys: Tensor, window: int) -> Tensor:
    """Which keys are `window` columns or more before the query, bool `[batch, 1, queries, keys]`."""
    return queries[:, None, :, None] - keys[:, None, None] >= window


def _lines(mask: Tensor, queries: Tensor) -> Tensor:
    batch, some = queries.shape
    wide = mask.expand(batch, *mask.shape[1:])
    return wide.gather(2, queries[:, None, :, None].expand(batch, wide.shape[1], some, wide.shape[3]))


def _keys(mask: Tensor, index: Tensor) -> Tensor:
    batch, some = index.shape
    wide = mask.expand(batch, *mask.shape[1:])
    return wide.gather(3, index[:, None, None].expand(batch, wide.shape[1], wide.shape[2], some))
