"""One call of a model with pictures in it: where its visual tokens stand, and what was read of them on the way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from torch import Tensor

from compress.attention.call import Attention
from compress.errors import ModelError
from compress.runtime.tokens.places.kind import Grid, Seen
from compress.runtime.tokens.slots import Slots


@dataclass(frozen=True, eq=False)
class Group:
    """Visual tokens that share a budget, as they came: their `row` of the batch, `columns` long `[n]` of the prompt,
    and what their `Grid` says of them: its shape, the tower's patches that each is made of, the tower's prefix."""

    row: int
    columns: Tensor
    shape: tuple[int, int] | None
    units: Tensor | None
    prefix: int


@dataclass(frozen=True, eq=False)
class Layer:
    """What was seen of one layer of the decoder: its attention, and the slots that there were then."""

    attention: Attention
    slots: Slots


@dataclass(eq=False)
class Turn:
    """One call. Of each column, `[batch, length]`: whether it is a visual token, `valid` (no padding), still `alive`;
    the `previous` stage's score of it; how many tokens it stands for (`sizes`). `seen`: what the tower ran over.
    `decoder`: the layers whose attention was watched, by number; `moved`: what modules of layers were given and gave,
    by number and kind."""

    visual: Tensor
    valid: Tensor
    alive: Tensor
    seen: Seen = field(default_factory=Seen)
    groups: list[Group] = field(default_factory=list)
    decoder: dict[int, Layer] = field(default_factory=dict)
    moved: dict[tuple[int, str], tuple[Tensor, Tensor, Slots]] = field(default_factory=dict)
    previous: Tensor | None = None
    sizes: Tensor = field(default_factory=lambda: torch.ones(0))

    @classmethod
    def of(cls, visual: Tensor, mask: Any) -> Turn:
        """`mask` is `[batch, length]` where there is padding; of others nothing is read."""
        plain = isinstance(mask, Tensor) and mask.shape == visual.shape
        valid = mask.bool() if plain else torch.ones_like(visual)
        return cls(visual, valid, torch.ones_like(visual), sizes=torch.ones(visual.shape, device=visual.device))

    @property
    def length(self) -> int:
        return self.visual.shape[1]

    def arrange(self, seen: Seen, grids: list[list[Grid]]) -> None:
        """Give each picture's grids their columns. A prompt may stand in several rows in a row, as beams do.

        Raises ModelError where the prompts have another number of visual tokens than the pictures.
        """
        self.seen, tokens, came = seen, int(self.visual.sum()), sum(seen.counts)
        if not came or tokens % came or len(self.visual) % (times := tokens // came):
            raise ModelError(
                f"tokens: the prompts have {tokens} visual tokens, their pictures {came}; give each prompt whole, with "
                "its pictures (generate without prefill_chunk_size)"
            )
        pictures = iter(zip(seen.counts, grids, strict=True))
        for first in range(0, len(self.visual), times):
            columns, start = self.visual[first].nonzero()[:, 0], 0
            while start < len(columns):
                count, own = next(pictures)
                for row, grid in product(range(first, first + times), own):
                    places = columns[start : start + count][grid.tokens.to(columns.device)]
                    self.groups.append(Group(row, places, grid.shape, grid.units, grid.prefix))
                start += count

    def budgets(self, per: str) -> Iterator[Group]:
        """The groups that share a budget each: a picture's grids, or all of a prompt's together."""
        if per == "picture":
            yield from self.groups
            return
        rows: dict[int, list[Group]] = defaultdict(list)
        for group in self.groups:
            rows[group.row].append(group)
        for row, own in rows.items():
            units = [group.units for group in own]
            known = None if any(unit is None for unit in units) else torch.cat(units)  # pyright: ignore
            columns = torch.cat([group.columns for group in own])
            yield own[0] if len(own) == 1 else Group(row, columns, None, known, own[0].prefix)
