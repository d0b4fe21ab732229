"""Slices of a tensor at the positions that stay."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def take(tensor: Tensor, dim: int, positions: np.ndarray) -> Tensor:
    """The slices at `positions`, int64, along `dim` ≥ 0, as `index_select` gives them.

    Along the last dimension that runs on one thread, element after element; `gather` is two to ten times as fast.
    """
    index = torch.from_numpy(positions).to(tensor.device)
    if dim == 0 or dim < tensor.dim() - 1:
        return tensor.index_select(dim, index)
    return tensor.gather(dim, index.expand(*tensor.shape[:-1], -1))
