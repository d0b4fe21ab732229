"""Angular distance of a block's input and output (CFSP, Wang et al. 2024, https://arxiv.org/abs/2409.13199)."""

from __future__ import annotations

from torch import Tensor

from compress.registry import criteria
from compress.registry.scope import Scope


@criteria.add("angular_distance", scope=Scope.LAYERS, needs=("block_angle",), paper="2409.13199")
def angular_distance(block_angle: Tensor) -> Tensor:
    """arccos(cos(block in, block out)) / π, mean over tokens; CFSP's importance of a block.

    `block_angle` `[blocks]` in [0, 1] → `[blocks]`.
    """
    return block_angle
