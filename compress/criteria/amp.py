"""AMP: attention heads and MLP pruning by projected activations (https://arxiv.org/abs/2504.21174)."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.registry import criteria
from compress.registry.scope import Scope
from compress.score.views import MemberView


@criteria.add("amp", scope=Scope.UNITS, on="in", needs=("projection",), paper="2504.21174")
def amp(views: list[MemberView]) -> Tensor:
    """Mean over tokens of ‖x_unit · W_unitᵀ‖₁: the size of what a group adds to the residual stream.

    The statistic `projection` `[size]` of each consumer; for groups of one channel it is mean |x|, as in the paper.
    """
    return torch.stack([view.stats["projection"] for view in views if view.role == "in"]).sum(0)
