"""Routing frequency: how often, or with what weight, a router chooses an expert."""

from __future__ import annotations

from torch import Tensor

from compress.registry import criteria
from compress.registry.scope import Scope


@criteria.add("frequency", scope=Scope.EXPERTS, needs=("expert_count", "expert_gate"))
def frequency(expert_count: Tensor, expert_gate: Tensor, *, weighted: bool = False) -> Tensor:
    """Share of the tokens that an expert is chosen for; `weighted`: the mean of the router's weights instead.

    `expert_count`, `expert_gate` `[experts]` → `[experts]`.
    """
    return expert_gate if weighted else expert_count
