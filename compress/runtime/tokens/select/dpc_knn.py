"""Cluster centres (DPC-KNN), as HoliTom and SparseVLM use them."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from compress.registry import token_selects
from compress.runtime.tokens.density_peaks import peaks
from compress.runtime.tokens.selection import Selection, checked


@token_selects.add("dpc_knn", needs=("hidden", "keep"), paper="2204.08680")
def dpc_knn(hidden: Tensor, keep: int, *, neighbours: Annotated[int, Field(ge=1)] = 5) -> Selection:
    """The centres of `keep` clusters around density peaks; each other token goes to the nearest centre.

    `neighbours` that density is measured by, as in TCFormer; HoliTom has 7. `hidden` `[n, dim]`.
    """
    n = len(hidden)
    if checked(keep, n) == n:
        return Selection(torch.arange(n, device=hidden.device), torch.arange(n, device=hidden.device))
    centres, member = peaks(hidden, keep, neighbours)
    return Selection.merging(centres, centres[member])
