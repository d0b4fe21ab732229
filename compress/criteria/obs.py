"""Structured optimal brain surgeon (ZipLM, Kurtic et al. 2023, https://arxiv.org/abs/2302.04089)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from compress.registry import criteria
from compress.registry.scope import Scope
from compress.score.elimination import Consumer, Per, ascending, eliminate
from compress.score.views import MemberView


@criteria.add("obs", scope=Scope.CONSUMERS, on="in", needs=("input_gram", "input_mean"), paper="2302.04089")
def obs(
    views: list[MemberView],
    biased: list[bool],
    *,
    damping: Annotated[float, Field(gt=0)] = 0.01,
    per: Per = "input",
    block: Annotated[int, Field(ge=1)] = 16,
    intercept: bool = True,
) -> Tensor:
    """What the output loses when a group leaves after all that cost less, the rest updated each time.

    The group that costs least leaves, what reads the others makes up for it through the inverse Hessian, and the next
    is chosen by what is left: of two channels that say the same the second is dear once the first has left. The cost is
    the mean squared error of the consumers' outputs, summed over outputs, that least squares could not mend; say
    `repair: {least_squares: {per: input}}` with it, whose `ridge` and `intercept` are `damping` and `intercept` here.
    H = mean x·xᵀ + `damping` × its diagonal, or with `per: matrix` × the mean of it, as in the paper, which one input
    of huge size makes a ranking by weights alone. With `intercept` the mean is left to the bias where there is one. All
    consumers are updated after every `block` groups, and the cheapest 2 · `block` after each; `block: 1` is the exact
    greedy order. Groups of several inputs (heads) leave one at a time.

    The statistics `input_gram` `[in, in]` and `input_mean` `[in]` of each consumer, and whether each is `biased` →
    score `[size]`, which ascends in the order of leaving.
    """
    found = consumers(views, [has and intercept for has in biased], damping, per)
    return ascending(*eliminate(found, views[0].size, block))


def consumers(views: list[MemberView], centred: list[bool], damping: float, per: Per) -> list[Consumer]:
    """The consumers of a family; those that read the same input are one, with the outputs of all.

    `centred` says of each view whether a bias takes up the mean.
    """
    alike: list[tuple[bool, list[MemberView]]] = []
    for view, own in zip(views, centred, strict=True):
        for bias, same in alike:
            if bias == own and torch.equal(same[0].units, view.units) and torch.equal(_gram(same[0]), _gram(view)):
                same.append(view)
                break
        else:
            alike.append((own, [view]))
    return [_joined(same, bias, damping, per) for bias, same in alike]


def _joined(same: list[MemberView], centred: bool, damping: float, per: Per) -> Consumer:
    """Views that read the same input as one consumer."""
    first, weight = same[0], torch.cat([view.weight for view in same])
    mean = first.stats["input_mean"] if centred else None
    return Consumer(first.tensor, weight, _gram(first), first.units, first.size, damping, per, mean)


def _gram(view: MemberView) -> Tensor:
    return view.stats["input_gram"]
