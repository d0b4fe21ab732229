"""Token transition variation (TransPrune, Li et al. 2025, https://arxiv.org/abs/2507.20630)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from compress.registry import token_scores
from compress.runtime.tokens.rows import Layers


@token_scores.add("transition", needs=("inputs", "outputs"), paper="2507.20630")
def transition(
    inputs: Tensor,
    outputs: Tensor,
    *,
    layers: Layers = (-1,),
) -> Tensor:
    """How far modules turn and stretch a token: Σ ‖v‖ / ‖u‖ · softmax(1 - cos(u, v)), its share of the group's.

    u is what an attention or MLP module of `layers` is given and v what it gives. The softmax is over the group, the
    released code's over the whole prompt, which weighs the modules a little differently against each other. 0 for a
    token that a module is given as zeros.

    Both `[modules, n, dim]` → `[n]`, which sums to 1.
    """
    given, gave = inputs.float(), outputs.float()
    size = given.norm(dim=-1)
    stretch = torch.where(size > 0, gave.norm(dim=-1) / size.clamp(min=torch.finfo(size.dtype).tiny), 0)
    turn = (1 - cosine_similarity(given, gave, dim=-1)).softmax(-1)
    total = (stretch * turn).sum(0)
    return total / (total.sum() + 1e-8)
