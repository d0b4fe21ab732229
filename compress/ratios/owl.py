"""OWL: outlier-weighed layerwise sparsity (Yin et al. 2023, https://arxiv.org/abs/2310.05175)."""

from __future__ import annotations

import numpy as np

from compress.registry import ratios
from compress.sparse.matrices import Matrices


@ratios.add("owl", needs=("input_norm",), paper="2310.05175")
def owl(matrices: Matrices, share: float, *, times: float = 5.0, spread: float = 0.08) -> dict[str, float]:
    """Blocks with more outliers keep more: |w|·‖x‖₂ above `times` the block's mean; densities within ± `spread`.

    As in the released code, outlier shares are scaled to a range of 2 · `spread` and centred on the mean density.
    """
    found = []
    for names in matrices.blocks:
        total, count, size = 0.0, 0, 0
        scores = [matrices.weight(name).abs() * matrices.statistic("input_norm", name) for name in names]
        for score in scores:
            total, size = total + float(score.sum(dtype=score.double().dtype)), size + score.numel()
        for score in scores:
            count += int((score > times * total / size).sum())
        found.append(count / size)
    outliers = np.array(found)
    scaled = (outliers - outliers.min()) / max(np.ptp(outliers), 1e-12) * 2 * spread
    weight = np.array([sum(matrices.sizes[name] for name in names) for names in matrices.blocks])
    density = scaled - (scaled * weight).sum() / weight.sum() + 1 - share
    gone = np.clip(1 - density, 0.0, 1.0)
    return {name: float(gone[i]) for i, names in enumerate(matrices.blocks) for name in names}
