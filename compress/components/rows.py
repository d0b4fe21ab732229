"""What became of a component of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """Parameters of a `component` that are not zero, `before` and `after`; what `part` of its `remove` was carried out;
    the `damage` at each tenth of the way that was looked at; and the line of Python that opens it alone."""

    component: str
    before: int
    after: int
    part: float
    damage: Sequence[float]
    load: str
