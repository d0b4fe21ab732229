"""How a medium beside text is given, and where in the text it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from compress.inputs.batch import Batch


class Layout(Protocol):
    """What a forward is given for samples of a medium `[rows, *size]`."""

    @property
    def size(self) -> tuple[int, ...]:
        """Of one sample."""
        ...

    def lay(self, samples: Tensor) -> Batch:
        """The forward's tensors by name; the first dimension of each is the row."""
        ...


@dataclass(frozen=True)
class Placed:
    """A layout that the model takes, and how many tokens `stand` for a sample in the text, each of them `token`.

    `masked`: it has to be told that no token is padding.
    """

    layout: Layout
    stand: int
    token: int | None
    masked: bool = False
