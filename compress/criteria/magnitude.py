"""Magnitude (Han et al. 2015, https://arxiv.org/abs/1506.02626)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from compress.registry import criteria
from compress.registry.scope import Scope


@criteria.add("magnitude", scope=Scope.WEIGHTS, on="all", paper="1506.02626")
def magnitude(weight: Tensor, *, norm: Literal["l1", "l2"] = "l1") -> Tensor:
    """|w| or w² of every weight of the group; needs no data.

    `weight` `[out, in]` → saliency `[out, in]`. With `reduce: sum`, `l2` is the squared Euclidean norm of the group.
    """
    return weight.abs() if norm == "l1" else weight.square()
