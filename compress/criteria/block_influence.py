"""Block influence (ShortGPT, Men et al. 2024, https://arxiv.org/abs/2403.03853)."""

from __future__ import annotations

from torch import Tensor

from compress.registry import criteria
from compress.registry.scope import Scope


@criteria.add("block_influence", scope=Scope.LAYERS, needs=("block_cosine",), paper="2403.03853")
def block_influence(block_cosine: Tensor) -> Tensor:
    """1 − cos(block in, block out), mean over tokens: a block that hardly turns the stream can go.

    `block_cosine` `[blocks]` → `[blocks]`.
    """
    return 1 - block_cosine
