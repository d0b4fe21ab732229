"""One token for all that leave (EViT, Liang et al. 2022, https://arxiv.org/abs/2202.07800)."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.registry import token_residuals
from compress.runtime.tokens.merged import Merged, dropped, extended, means
from compress.runtime.tokens.selection import Selection


@token_residuals.add("one", needs=("selection", "scores"), paper="2202.07800")
def one(selection: Selection, scores: Tensor, *, weighted: bool = True) -> Merged:
    """One token more: the mean of all that are not selected, `weighted` by their scores.

    It takes the place of the best of them. Scores below 0 count 0; where all do, the best token stands for them.
    `scores` `[n]`.
    """
    n = len(scores)
    gone = dropped(selection.kept, n)
    if not len(gone):
        return Merged(selection.kept)
    best = gone[scores[gone].argmax()][None]
    kept, into = extended(selection.kept, best, n)
    into[gone] = into[best]
    weight = scores.float().clamp(min=0) if weighted else torch.ones(n, device=scores.device)
    return means(kept, into, weight.index_fill(0, selection.kept, 1))
