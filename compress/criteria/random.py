"""Random: the floor that every other criterion has to beat."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from compress.graph.families import Family
from compress.registry import criteria
from compress.registry.scope import Scope


@criteria.add("random", scope=Scope.FAMILIES)
def random(family: Family, seed: int, *, salt: int = 0) -> Tensor:
    """Uniform noise; the same `seed` of the recipe and `salt` give the same groups again.

    → score `[size]` in [0, 1). The family's name goes into the seed, so that layers differ and their order is free.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{salt}/{family.name}".encode()))
    return torch.rand(family.size, generator=generator)
