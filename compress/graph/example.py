"""The forward that is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Example:
    """Keyword arguments of a model's forward: `tensors`, and `options` that are none.

    Tensors are on the meta device, or real ones where the forward looks at their values: at which tokens stand for an
    image, how many patches it has.

    `axes` names dimensions of the tensors, name → (tensor, dimension): `batch`, of samples, and `sequence`, where a
    sample's length is free. `Graph.flops` is told their sizes.
    """

    tensors: Mapping[str, Tensor]
    axes: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
