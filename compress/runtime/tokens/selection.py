"""What a selection returns: the tokens that stay, and where the others go."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Selection:
    """`kept` `[k]` are the tokens that stay, ascending.

    `assign` `[n]` is each token's index into `kept` of the one that it is merged into (those kept, themselves), -1 for
    one that is merged into none; None where the selection does not say.
    """

    kept: Tensor
    assign: Tensor | None = None

    @classmethod
    def of(cls, chosen: Tensor) -> Selection:
        """`chosen` tokens, in any order."""
        return cls(chosen.sort().values)

    @classmethod
    def merging(cls, chosen: Tensor, into: Tensor) -> Selection:
        """`chosen` tokens in any order; `into` `[n]` is the token that each is merged into, -1 for none."""
        kept = chosen.sort().values
        place = torch.full((len(into) + 1,), -1, dtype=torch.long, device=into.device)  # the last is read by -1
        place[kept] = torch.arange(len(kept), device=into.device)
        return cls(kept, place[into])


def checked(keep: int, n: int) -> int:
    """`keep`. Raises ValueError when it is not within 1 to n, which whoever calls a selection sees to."""
    if not 1 <= keep <= n:
        raise ValueError(f"keep={keep} of {n} tokens; it has to be 1 to {n}")
    return keep


def descending(scores: Tensor) -> Tensor:
    """Tokens by score `[n]`, the highest first and of equal ones the first."""
    return scores.float().argsort(descending=True, stable=True)
