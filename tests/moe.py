"""Tiny mixture-of-experts models: what tests do with their routers and experts."""

from pathlib import Path
from typing import Any

import torch
import zoo
from torch import nn
from zoo import stock

__all__ = ["blocks", "router", "save", "stock", "tokens"]

MODELS = zoo.MIXTURES


def save(name: str, folder: Path, **changes: Any) -> Path:
    """A random mixture of the zoo, whose routers have clear preferences; the folder."""
    return zoo.save(name, folder, **changes).folder


def tokens(rows: int = 3, length: int = 12, seed: int = 3) -> torch.Tensor:
    """Random ids `[rows, length]`."""
    return torch.randint(1, 96, (rows, length), generator=torch.Generator().manual_seed(seed))


def blocks(model: nn.Module) -> dict[int, nn.Module]:
    """Layer → its module with a router and stacked experts."""
    found = {}
    for i, layer in enumerate(model.model.layers):
        inside = next((m for m in (getattr(layer, "mlp", None), getattr(layer, "block_sparse_moe", None)) if m), None)
        if hasattr(inside, "experts"):
            found[i] = inside
    return found


def router(block: nn.Module) -> nn.Module:
    """The router of such a module."""
    return block.gate if hasattr(block, "gate") else block.router  # pyright: ignore[reportReturnType]


class Renumbered(nn.Module):
    """A router over fewer experts, whose choices are given the dense model's numbers."""

    def __init__(self, small: nn.Module, kept: list[int]) -> None:
        super().__init__()
        self.small, self.kept = small, torch.tensor(kept)

    def forward(self, states: torch.Tensor) -> Any:
        logits, weights, chosen = self.small(states)
        return logits, weights, self.kept[chosen]
