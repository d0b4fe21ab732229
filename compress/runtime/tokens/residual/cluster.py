"""Recycling by clusters (SparseVLM, Zhang et al. 2024, https://arxiv.org/abs/2410.04417)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from compress.registry import token_residuals
from compress.runtime.tokens.density_peaks import peaks
from compress.runtime.tokens.merged import Merged, dropped, extended, means
from compress.runtime.tokens.selection import Selection, descending


@token_residuals.add("cluster", needs=("selection", "scores", "hidden"), paper="2410.04417")
def cluster(
    selection: Selection,
    scores: Tensor,
    hidden: Tensor,
    *,
    share: Annotated[float, Field(gt=0, le=1)] = 0.3,
    per: Annotated[int, Field(ge=1)] = 10,
    neighbours: Annotated[int, Field(ge=1)] | None = None,
) -> Merged:
    """Tokens more, each the mean of a cluster of those that are not selected, at its centre's place.

    Of d tokens that leave the best ⌊share · d⌋ + 1 = m by score are clustered around density peaks into ⌊m / per⌋ + 1
    clusters, the others are lost. `neighbours` that density is measured by: as many as there are clusters in the
    released code (None). `share: 1` clusters all, as Recoverable Compression does (https://arxiv.org/abs/2409.01179).
    `scores` `[n]`, `hidden` `[n, dim]`.
    """
    n = len(hidden)
    gone = dropped(selection.kept, n)
    if not len(gone):
        return Merged(selection.kept)
    chosen = gone[descending(scores[gone])[: int(len(gone) * share) + 1].sort().values]
    count = min(len(chosen) // per + 1, len(chosen))
    centres, member = peaks(hidden[chosen], count, neighbours or count)
    kept, into = extended(selection.kept, chosen[centres], n)
    into[chosen] = into[chosen[centres[member]]]
    return means(kept, into, torch.ones(n, device=hidden.device))
