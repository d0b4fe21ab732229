"""Inputs that are found out by trying: the first of several that a model's forward on the meta device takes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from compress.errors import ModelError
from compress.graph.example import Example
from compress.inputs.ask import answer, needs, on_meta
from compress.inputs.batch import Batch, given
from compress.inputs.kind import Inputs
from compress.inputs.once import once

ROWS, ODD_ROWS = 2, 3
"""Of what is traced, and of what sizes are told apart by."""


@dataclass(frozen=True)
class Way:
    """What a forward may take: name → the size of one sample. Floating numbers are noise.

    `below`: name → the number that whole numbers `[rows, *size]` lie below; `ones`: names whose numbers are all one;
    `masks`: the same, of whole numbers.
    """

    sizes: Mapping[str, tuple[int, ...]]
    below: Mapping[str, int] = field(default_factory=dict)
    ones: frozenset[str] = frozenset()
    masks: frozenset[str] = frozenset()

    def draw(self, rows: int, seed: int = 0) -> Batch:
        """So many samples."""
        generator = torch.Generator().manual_seed(seed)
        return {name: self._one(name, (rows, *size), generator) for name, size in self.sizes.items()}

    def _one(self, name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        if name in self.ones | self.masks:
            return torch.ones(shape, dtype=torch.long if name in self.masks else torch.float)
        if name in self.below:
            return torch.randint(self.below[name], shape, generator=generator)
        return torch.randn(shape, generator=generator)


class Tried(Inputs):
    """Samples of the first of the `ways` that the model takes."""

    @abstractmethod
    def ways(self) -> Iterator[Way]:
        """What the config and the forward's signature leave open, the likeliest first."""

    @property
    def way(self) -> Way:
        """The first that the forward runs with. Raises ModelError where there is none."""
        return once(self, self._find)

    def example(self) -> Example:
        """Two samples; they are real, as the forward may look at them."""
        batch = given(self.check(ROWS))
        return Example(batch, {"batch": (next(iter(batch)), 0)}, self.caches())

    def check(self, rows: int = 2, seed: int = 0) -> Batch:
        """Noise."""
        return self.way.draw(rows, seed)

    def odd(self, device: torch.device | str = "meta") -> Batch:
        """Three samples of the usual size, as many models take no other."""
        return self.check(ODD_ROWS)

    def caches(self) -> dict[str, Any]:
        """Options of the forward that is traced."""
        return {}

    def _find(self) -> Way:
        model, reasons = on_meta(self.model), list[str]()
        for way in self.ways():
            try:
                answer(model, way.draw(ROWS))
                return way
            except ModelError as error:
                sizes = ", ".join(f"{name} {list(size)}" for name, size in way.sizes.items())
                reasons.append(f"a sample of {sizes}: {str(error).partition(': ')[2]}")
        tried = "; ".join(dict.fromkeys(reasons)) or "no size of them is known from its config"
        raise ModelError(
            f"{type(self.model).__name__} needs {' and '.join(needs(self.model)) or 'nothing'}, and ran with none of "
            f"what was tried ({tried}); put inputs that it takes into example_inputs.npz beside config.json"
        )
