"""Pruning by explaining (Hatefi et al. 2024, https://arxiv.org/abs/2408.12568): units that the model's answers do not
come by go first."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.registry import criteria
from compress.registry.scope import Scope
from compress.score.views import MemberView

PAPER = "2408.12568"


@criteria.add("relevance", scope=Scope.UNITS, on="in", needs=("input_relevance",), paper=PAPER)
def relevance(views: list[MemberView]) -> Tensor:
    """Mean over samples of |R|, the relevance of the model's answer summed over tokens or positions, added up over a
    unit's channels and its consumers → `[size]`. By the ε-rule; in transformers AttnLRP. The paper averages R before it
    takes |R|: samples of different classes then cancel each other."""
    return _of(views, "input_relevance")


@criteria.add("relevance_gamma", scope=Scope.UNITS, on="in", needs=("input_relevance_gamma",), paper=PAPER)
def relevance_gamma(views: list[MemberView]) -> Tensor:
    """The same by the γ-rule, γ = 0.25: contributions of a result's own sign count more → `[size]`."""
    return _of(views, "input_relevance_gamma")


@criteria.add("relevance_positive", scope=Scope.UNITS, on="in", needs=("input_relevance_positive",), paper=PAPER)
def relevance_positive(views: list[MemberView]) -> Tensor:
    """The same by the z⁺-rule: positive contributions alone → `[size]`."""
    return _of(views, "input_relevance_positive")


@criteria.add("relevance_composite", scope=Scope.UNITS, on="in", needs=("input_relevance_composite",), paper=PAPER)
def relevance_composite(views: list[MemberView]) -> Tensor:
    """The same by the γ-rule in the first half of the blocks, by the ε-rule behind it → `[size]`."""
    return _of(views, "input_relevance_composite")


def _of(views: list[MemberView], name: str) -> Tensor:
    parts = [view.onto_units(view.stats[name]) for view in views if name in view.stats]
    return torch.stack(parts).sum(0)
