"""After UNCURL: experts that the router of a task's tokens tells apart little (https://arxiv.org/abs/2409.01141)."""

from __future__ import annotations

from torch import Tensor

from compress.registry import criteria
from compress.registry.scope import Scope


@criteria.add("router_similarity", scope=Scope.DISTANCES, needs=("router_gram",), paper="2409.01141")
def router_similarity(router_gram: Tensor) -> Tensor:
    """1 − cosine of the experts' router logits over the calibration tokens: give the task's own text as data.

    `router_gram` `[experts, experts]`, mean of l·lᵀ → `[experts, experts]`. The paper's affinity is not published in
    full; the cosine of logit columns is this program's reading of it.
    """
    norms = router_gram.diagonal().clamp_min(1e-12).sqrt()
    return 1 - router_gram / norms / norms[:, None]
