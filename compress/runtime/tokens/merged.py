"""What a residual returns: the tokens that go on, as weighted means of those that there were."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Merged:
    """Tokens `[n, dim]` become `weights @ tokens`, at the places `kept`.

    `kept` `[k]`, ascending, is the token whose place and position each one takes; it may hold more than were selected.
    `weights` `[k, n]` float32 has rows that sum to 1; None where tokens are gathered as they are.
    """

    kept: Tensor
    weights: Tensor | None = None


def means(kept: Tensor, into: Tensor, weight: Tensor) -> Merged:
    """Weighted means: `into` `[n]` is each token's index into `kept`, -1 for none, `weight` `[n]` what it counts.

    A mean whose weights are all 0 is the token kept alone.
    """
    rows = torch.zeros(len(kept), len(into), dtype=torch.float32, device=into.device)
    merged = (into >= 0).nonzero()[:, 0]
    rows[into[merged], merged] = weight[merged].float()
    total = rows.sum(1)
    rows /= total.clamp(min=torch.finfo(rows.dtype).tiny)[:, None]
    rows[torch.arange(len(kept), device=kept.device), kept] += total == 0
    return Merged(kept, rows)


def dropped(kept: Tensor, n: int) -> Tensor:
    """The tokens `[n - k]` that are not among `kept`, ascending."""
    gone = torch.ones(n, dtype=torch.bool, device=kept.device)
    gone[kept] = False
    return gone.nonzero()[:, 0]


def extended(kept: Tensor, more: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """`kept` with `more` tokens among them, ascending, and each token's `[n]` index into that, -1 for the others."""
    both = torch.cat((kept, more)).sort().values
    place = torch.full((n,), -1, dtype=torch.long, device=kept.device)
    place[both] = torch.arange(len(both), device=kept.device)
    return both, place
