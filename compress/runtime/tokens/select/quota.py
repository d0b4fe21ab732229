"""Several selections that share what is kept: important and diverse tokens, anchors and registers."""

from __future__ import annotations

from typing import Annotated, Protocol

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from compress.recipe.part import Part, TokenScore, TokenSelect
from compress.registry import token_selects
from compress.runtime.tokens.selection import Selection, checked


class Share(BaseModel):
    """A `select` that takes a `share` of all that is kept, by a `score` of its own or by the rule's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    select: TokenSelect = Part("top")
    score: TokenScore | None = None

    @field_validator("select")
    @classmethod
    def _flat(cls, select: Part) -> Part:
        if select.name == "quota":
            raise ValueError("a quota within a quota; write its parts into the outer one")
        return select


class Choose(Protocol):
    """What runs one part: it computes the part's own score over the whole group, if it has one, and what its `select`
    needs, all restricted to the tokens `among`."""

    def __call__(self, part: Share, among: Tensor, keep: int) -> Selection:
        """`keep` of the tokens `among` `[a]`, ascending; the selection counts within these."""
        ...


def _shares(parts: list[Share]) -> list[Share]:
    if any(part.share is None for part in parts[:-1]):
        raise ValueError("only the last part may be without a share: it takes what is left")
    if parts[-1].share is not None:
        raise ValueError("the last part takes what is left; leave out its share")
    if (total := sum(part.share or 0 for part in parts)) >= 1:
        raise ValueError(f"shares sum to {total:g}, which leaves the last part nothing; let them sum to less than 1")
    return parts


@token_selects.add("quota", needs=("hidden", "choose", "keep"))
def quota(
    hidden: Tensor,
    choose: Choose,
    keep: int,
    *,
    parts: Annotated[list[Share], Field(min_length=2), AfterValidator(_shares)],
) -> Selection:
    """Each of `parts` takes its share of what is kept from the tokens that those before it left; the last, the rest.

        quota: {parts: [{share: 0.84, select: top}, {select: contextual}]}                        # VisionZip
        quota: {parts: [{share: 0.1, select: {dilate: {fill: false}}, score: {attention: {queries: all, layers: [8]}}},
                        {select: top}]}                                                           # HiPrune

    A share is rounded, and cut to what is left. The last part takes the rest whatever those before it took; where it
    says into which tokens others merge, all that are left out do. `hidden` `[n, dim]` is only counted.
    """
    n = len(hidden)
    checked(keep, n)
    if keep == n:
        return Selection(torch.arange(n, device=hidden.device))
    among, chosen, left = torch.arange(n, device=hidden.device), [], keep
    into = None
    for part in parts:
        count = left if part.share is None else min(round(part.share * keep), left)
        if not count:
            continue
        found = choose(part, among, count)
        taken = found.kept[:left]
        chosen.append(among[taken])
        left -= len(taken)
        if part is parts[-1] and found.assign is not None:
            into = torch.arange(n, device=hidden.device)
            target = among[found.kept[found.assign]]
            into[among] = torch.where(found.assign >= 0, target, -1)
        among = among[torch.isin(torch.arange(len(among), device=among.device), taken, invert=True)]
    tokens = torch.cat(chosen)
    return Selection.of(tokens) if into is None else Selection.merging(tokens, into)
