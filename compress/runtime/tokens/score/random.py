"""Chance, which every score has to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.registry import token_scores


@token_scores.add("random", needs=("hidden", "generator"))
def random(hidden: Tensor, generator: torch.Generator) -> Tensor:
    """Drawn evenly from 0 to 1. `hidden` `[n, dim]` → `[n]`."""
    return torch.rand(len(hidden), generator=generator, device=generator.device).to(hidden.device)
