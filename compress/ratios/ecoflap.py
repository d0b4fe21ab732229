"""ECoFLaP: block ratios from zeroth-order gradients of the loss (Sung et al. 2023, https://arxiv.org/abs/2310.02998)."""

from __future__ import annotations

import numpy as np
import torch

from compress.registry import ratios
from compress.sparse.matrices import Matrices


@ratios.add("ecoflap", paper="2310.02998")
def ecoflap(
    matrices: Matrices, share: float, *, step: float = 1e-3, batches: int = 2, range: float = 0.1, seed: int = 0
) -> dict[str, float]:
    """Blocks whose matrices move the loss keep more; |L(θ + εz) − L(θ − εz)| / 2ε, z normal noise on one matrix.

    Every block first keeps its least, 1 − (share + `range`); the rest of the budget goes by score, none above whole.
    Two forwards a matrix and batch: the model is held in memory for them.
    """
    generator = torch.Generator().manual_seed(seed)
    scores, sizes = [], np.array([sum(matrices.sizes[name] for name in names) for names in matrices.blocks], float)
    with matrices.losses(batches) as losses:
        for names in matrices.blocks:
            scores.append(sum(losses.sensitivity(name, step, generator) for name in names))
    kept = spend(np.array(scores), sizes, (1 - share) * sizes.sum(), least=max(1 - share - range, 0.0))
    gone = 1 - kept / sizes
    return {name: float(gone[i]) for i, names in enumerate(matrices.blocks) for name in names}


def spend(scores: np.ndarray, sizes: np.ndarray, budget: float, least: float) -> np.ndarray:
    """How many weights each block keeps, `[blocks]`: its least, then in proportion to its score, at most all."""
    kept = np.ceil(sizes * least)
    open_ = np.ones(len(sizes), bool)
    while (left := budget - kept.sum()) > 1e-6 * budget and open_.any():
        weights = np.where(open_, np.maximum(scores, 1e-300), 0.0)
        kept = np.minimum(kept + left * weights / weights.sum(), sizes)
        open_ = kept < sizes
    return kept
