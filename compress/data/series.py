"""Series of numbers, generated."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def waves(rows: int, length: int, channels: tuple[int, ...], seed: int) -> Tensor:
    """Sums of a slow and a fast sine with a trend and noise, `[rows, length, *channels]`, each channel its own."""
    generator = torch.Generator().manual_seed(seed)
    slow, fast, start, trend = torch.rand(4, rows, 1, *channels, generator=generator)
    time = torch.arange(length, dtype=torch.float32).view(1, -1, *[1] * len(channels))
    smooth = torch.sin(time * (0.05 + 0.1 * slow) + 2 * math.pi * start) + 0.5 * torch.sin(time * (0.5 + fast))
    noise = torch.randn(rows, length, *channels, generator=generator)
    return smooth + (trend - 0.5) * time / length + 0.1 * noise
