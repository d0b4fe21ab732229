"""Entropy of a token's pixels (VFlowOpt, Yang et al. 2025, https://arxiv.org/abs/2508.05211)."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.registry import token_scores

BINS = 256


@token_scores.add("entropy", needs=("pixels",), paper="2508.05211")
def entropy(pixels: Tensor) -> Tensor:
    """Entropy in bits of the grey values of a token's patch, in 256 bins: what is flat says little.

    `pixels` `[n, p]`, 0 to 1 → `[n]`, 0 to 8.
    """
    grey = (pixels.float() * (BINS - 1)).round().long().clamp(0, BINS - 1)
    count = torch.zeros(len(pixels), BINS, device=pixels.device)
    share = count.scatter_add(1, grey, torch.ones_like(grey, dtype=count.dtype)) / grey.shape[1]
    return -torch.special.xlogy(share, share).sum(1) / torch.log(torch.tensor(2.0))
