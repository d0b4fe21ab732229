"""Which entries of a task vector stay."""

from __future__ import annotations

import zlib
from typing import Literal

import torch
from torch import Tensor


def keep(delta: Tensor, share: float, by: Literal["darex", "dare", "magnitude"], *, name: str, seed: int) -> Tensor:
    """Where Δ stays: bool of its shape, a `share` of it False.

    `dare` and `darex` drop each entry with probability `share`, independently (Yu et al. 2023,
    https://arxiv.org/abs/2311.03099); `name` and `seed` give the same mask again. `magnitude` drops exactly
    round(share · entries) of the smallest |Δ|.
    """
    if by != "magnitude":
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
        return torch.rand(delta.shape, generator=generator) >= share
    gone = round(share * delta.numel())
    kept = torch.ones(delta.numel(), dtype=torch.bool)
    kept[delta.abs().reshape(-1).argsort(stable=True)[:gone]] = False
    return kept.view(delta.shape)
