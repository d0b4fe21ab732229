"""Taylor expansion of the loss (LLM-Pruner, Ma et al. 2023, https://arxiv.org/abs/2305.11627)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from compress.registry import criteria
from compress.registry.scope import Scope
from compress.score.views import MemberView


@criteria.add(
    "taylor",
    scope=Scope.WEIGHTS,
    on="all",
    needs=("gradient",),
    when={"order": {"second": ("fisher",), "mixed": ("fisher",)}},
    paper="2305.11627",
)
def taylor(
    weight: Tensor,
    gradient: Tensor,
    fisher: Tensor | None = None,
    *,
    order: Literal["first", "second", "mixed"] = "first",
) -> Tensor:
    """|w·g|: the change of the loss when a weight goes; its `second` order is |w·A·w|, both `mixed` |w·g − ½ w·A·w|.

    The three of the published code (`param_first`, `param_second`, `param_mix`). `weight`, `gradient` (of the mean
    loss), `fisher` A (mean over samples of squared gradients) `[out, in]` → saliency `[out, in]`.
    """
    if order == "first":
        return (weight * gradient).abs()
    assert fisher is not None
    second = weight * fisher * weight
    return second.abs() if order == "second" else (weight * gradient - 0.5 * second).abs()


@criteria.add("taylor_vector", scope=Scope.UNITS, on="all", needs=("gradient",), paper="2305.11627")
def taylor_vector(views: list[MemberView]) -> Tensor:
    """|Σ w·g| per row or column: the loss change of whole vectors, whose weights may cancel each other.

    Vectors of the same group (channels of a head, the weights of one MLP channel) are added up → `[size]`.
    """
    rows = [view.onto_units((view.weight * view.stats["gradient"]).sum(1 - view.axis).abs()) for view in views]
    return torch.stack(rows).sum(0)
