"""STUN: experts that behave alike (Lee et al. 2024, https://arxiv.org/abs/2409.06211)."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.registry import criteria
from compress.registry.scope import Scope


@criteria.add("behaviour", scope=Scope.DISTANCES, when={"coactivation": ("expert_coactivation",)}, paper="2409.06211")
def behaviour(
    router: Tensor,
    expert_coactivation: Tensor | None = None,
    *,
    rows: float = 1.0,
    coactivation: float = 0.0,
) -> Tensor:
    """Distance of two experts: `rows` · ‖g_i − g_j‖₂ / ‖g‖_F − `coactivation` · a_ij / mean a.

    Experts with near router rows g are given near tokens; a_ij is how often both are chosen. Without `coactivation`
    no data is needed. `router` `[experts, hidden]`, `expert_coactivation` `[experts, experts]` →
    `[experts, experts]`.
    """
    apart = rows * torch.cdist(router[None], router[None])[0] / router.norm().clamp_min(1e-12)
    if coactivation:
        assert expert_coactivation is not None
        together = expert_coactivation / expert_coactivation.mean().clamp_min(1e-12)
        apart = apart - coactivation * together
    return apart
