"""What an allocator that measures may ask: how much worse a model gets that keeps less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from compress.allocate.pools import Pool

Kept = Mapping[str, np.ndarray]


class Trials(Protocol):
    """Both answers are at least zero, and zero where nothing goes."""

    def own_error(self, pool: Pool) -> np.ndarray:
        """The error inside the blocks of a pool that keeps 0, 1, … bundles, `[bundles + 1]`, never less with fewer.

        Computed from statistics: cheap, and comparable within one pool only.
        """
        ...

    def divergence(self, candidates: Sequence[Kept], samples: int, label: str) -> np.ndarray:
        """How far the model's output moves with each candidate (family → bool `[size]`, others whole).

        Forwards of so many samples; what was measured before is remembered, over runs too.
        """
        ...

    def known(self, candidate: Kept, samples: int) -> float | None:
        """The divergence of a candidate that was measured before."""
        ...
