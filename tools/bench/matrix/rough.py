"""What is constant at the start (biases, gains, some gates) would hide mistakes."""

from __future__ import annotations

import torch
from torch import nn

NOTHING = 1e-6
"""Weights up to this are as good as zero: SAM's are made so."""


@torch.no_grad()
def roughen(model: nn.Module) -> None:
    """Add noise to what is constant, so that no two channels are alike."""
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point() or tensor.numel() < 2 or "inv_freq" in name:
            continue
        if tensor.dim() == 1 or float(tensor.abs().max()) < NOTHING:
            noise = 0.1 * torch.randn(tensor.shape)
            tensor.mul_(1 + noise.abs()) if "var" in name.rpartition(".")[2] else tensor.add_(noise)
