"""CFSP's fine score (Wang et al. 2024, https://arxiv.org/abs/2409.13199)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from compress.registry import criteria
from compress.views import MemberView


@criteria.add("cfsp", scope="units", on="in", needs=("input_norm",), paper="2409.13199")
def cfsp(views: list[MemberView], *, form: Literal["paper", "released"] = "paper") -> Tensor:
    """A group's share, among all groups, of what its consumer and its producers weigh.

    `paper` is Eq. 8: for the consumer Σ_o |w_oj|·‖x_j‖ / (‖w_o*‖·‖x‖), for producers Σ_i |w_ji| / ‖w_*i‖, norms taken
    across neurons. `released` follows the published code, whose normaliser runs along the axis that is averaged next:
    all weights cancel and (matrices / width) · ‖x_j‖ is left. → `[size]`
    """
    norm = torch.stack([_activation(view) for view in views if view.role == "in"]).mean(0)
    total = torch.zeros_like(norm)
    for view in views:
        # Channels in columns, the neurons that share a normaliser in rows of `[rest, positions]`.
        weight = view.weight.abs() if view.axis == 1 else view.weight.abs().T
        if form == "released":
            if view.axis == 1:
                weight = weight * view.stats["input_norm"]
            share = (weight / weight.sum(0, keepdim=True).clamp_min(1e-12)).mean(0)
        else:
            share = (weight / weight.norm(dim=1, keepdim=True).clamp_min(1e-12)).sum(0)
            if view.axis == 1:
                x = view.stats["input_norm"]
                share = share * x / x.norm().clamp_min(1e-12)
        total += view.onto_units(share)
    return total * norm if form == "released" else total


def _activation(view: MemberView) -> Tensor:
    """Root of the summed squares of a unit's input norms, `[size]`."""
    return view.onto_units(view.stats["input_norm"].square()).sqrt()
