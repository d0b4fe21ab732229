"""What a module answers, as tensors by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from matrix.given import tensors


def answers(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The floating tensors of its output."""
    torch.manual_seed(0)
    with torch.no_grad():
        return named(module(x))


def named(output: Any) -> dict[str, Tensor]:
    """The floating tensors of an output, by their places in it."""
    return tensors({str(place): leaf for place, leaf in enumerate(tree_leaves(output))})
