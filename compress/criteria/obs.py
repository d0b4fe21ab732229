"""Structured optimal brain surgeon (ZipLM, Kurtic et al. 2023, https://arxiv.org/abs/2302.04089)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from compress.registry import criteria
from compress.registry.scope import Scope
from compress.score.elimination import Consumer, ascending, eliminate
from compress.score.views import MemberView


@criteria.add("obs", scope=Scope.CONSUMERS, on="in", needs=("input_gram",), paper="2302.04089")
def obs(
    views: list[MemberView],
    *,
    damping: Annotated[float, Field(gt=0)] = 0.01,
    block: Annotated[int, Field(ge=1)] = 16,
) -> Tensor:
    """What the output loses when a group leaves after all that cost less, the rest updated each time.

    The group that costs least leaves, what reads the others makes up for it through the inverse Hessian, and the next
    is chosen by what is left: of two channels that say the same the second is dear once the first has left. The cost is
    the mean squared error of the consumers' outputs, summed over outputs, that least squares could not mend; say
    `repair: least_squares` or `repair: obs` with it, of the same damping. H = mean x·xᵀ + `damping` × its mean diagonal
    of each consumer. All consumers are updated after every `block` groups, and the cheapest 2 · `block` after each;
    `block: 1` is the exact greedy order. Groups of several inputs (heads) leave one at a time.

    The statistic `input_gram` `[in, in]` of each consumer → score `[size]`, which ascends in the order of leaving.
    """
    size = views[0].size
    order, costs = eliminate(consumers(views, damping), size, block)
    return ascending(order, costs)


def consumers(views: list[MemberView], damping: float) -> list[Consumer]:
    """The consumers of a family; those that read the same input are one, with the outputs of all."""
    alike: list[list[MemberView]] = []
    for view in views:
        for same in alike:
            if torch.equal(same[0].units, view.units) and torch.equal(_gram(same[0]), _gram(view)):
                same.append(view)
                break
        else:
            alike.append([view])
    return [
        Consumer(
            same[0].tensor,
            torch.cat([view.weight for view in same]),
            _gram(same[0]),
            same[0].units,
            same[0].size,
            damping,
        )
        for same in alike
    ]


def _gram(view: MemberView) -> Tensor:
    return view.stats["input_gram"]
