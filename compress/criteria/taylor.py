"""Taylor expansion of the loss (LLM-Pruner, Ma et al. 2023, https://arxiv.org/abs/2305.11627)."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.registry import criteria
from compress.views import MemberView


@criteria.add(
    "taylor", scope="weights", on="all", needs=("gradient",), when={"second": ("fisher",)}, paper="2305.11627"
)
def taylor(weight: Tensor, gradient: Tensor, fisher: Tensor | None = None, *, second: bool = False) -> Tensor:
    """|w·g|: the change of the loss when a weight goes; `second` adds the diagonal term, |w·g − ½ w·A·w|.

    `weight`, `gradient` (of the mean loss), `fisher` A (mean over samples of squared gradients) `[out, in]` →
    saliency `[out, in]`.
    """
    change = weight * gradient
    if second:
        assert fisher is not None
        change = change - 0.5 * weight * fisher * weight
    return change.abs()


@criteria.add("taylor_vector", scope="units", on="all", needs=("gradient",), paper="2305.11627")
def taylor_vector(views: list[MemberView]) -> Tensor:
    """|Σ w·g| per row or column: the loss change of whole vectors, whose weights may cancel each other.

    Vectors of the same group (channels of a head, the weights of one MLP channel) are added up → `[size]`.
    """
    rows = [view.onto_units((view.weight * view.stats["gradient"]).sum(1 - view.axis).abs()) for view in views]
    return torch.stack(rows).sum(0)
