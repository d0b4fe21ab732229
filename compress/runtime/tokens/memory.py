"""What a cache remembers of the tokens that went: which columns of the prompts its layers hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from compress.runtime.tokens.slots import Slots

NAME = "compress_tokens"
"""The attribute of a cache."""


@dataclass(frozen=True, eq=False)
class Held:
    """From a layer on: its `slots`, and how far later positions are `moved` down, long `[batch]` (None: not at all)."""

    slots: Slots
    moved: Tensor | None = None

    def repeated(self, batch: int) -> Held:
        """For a batch that has each row several times, one after the other, as beams do."""
        times = batch // len(self.slots.columns)
        if times == 1:
            return self
        moved = None if self.moved is None else self.moved.repeat_interleave(times, 0)
        return Held(Slots(self.slots.columns.repeat_interleave(times, 0)), moved)


@dataclass(frozen=True, eq=False)
class Memory:
    """`length`: columns of the prompt. `stages`: first layer → what it and those after it hold; 0 is always there."""

    length: int
    stages: dict[int, Held]

    def at(self, layer: int) -> Held:
        """What a layer holds."""
        return self.stages[max(first for first in self.stages if first <= layer)]


def remembered(cache: Any) -> Memory | None:
    """What a cache remembers, None if it is of a call without rules."""
    return getattr(cache, NAME, None)
