"""REAP: router-weighted expert activation pruning (Lasby et al. 2025, https://arxiv.org/abs/2510.13999)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from compress.registry import criteria
from compress.registry.scope import Scope


@criteria.add(
    "reap", scope=Scope.EXPERTS, needs=("expert_gated_norm", "expert_norm", "expert_count"), paper="2510.13999"
)
def reap(
    expert_gated_norm: Tensor,
    expert_norm: Tensor,
    expert_count: Tensor,
    *,
    gate: bool = True,
    average: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Mean over the tokens routed to an expert of g(x)·‖f(x)‖₂: what it adds to the residual stream when it is asked.

    `gate: false` leaves the router's weight out (task-agnostic, arXiv 2606.15716), `average: sum` adds up over tokens
    (EAN with `gate: false`). All `[experts]` → `[experts]`.
    """
    norm = expert_gated_norm if gate else expert_norm
    return norm * expert_count if average == "sum" else norm
