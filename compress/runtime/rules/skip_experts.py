"""Tokens skip the experts that they hardly need: MC-MoE's online dynamic pruning (https://arxiv.org/abs/2410.06270)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from compress.calibrate import experts
from compress.calibrate.expert_totals import ratio
from compress.errors import ModelError
from compress.registry import rules
from compress.runtime.config import moved
from compress.runtime.importance import Importance


@rules.add("skip_experts")
@dataclass(frozen=True, kw_only=True)
class SkipExperts:
    """Tokens skip the choices of experts whose weight is small beside that of their first choice.

    `thresholds`: module of experts → share of the weight of a token's first choice, below which its other choices are
    skipped; the weights that stay are scaled to the sum of all. Tokens among the share `protect` of their text that
    matters most keep all choices; a text read token by token has nothing to compare them with, and protects none.

    Counted: `visits` of experts that the router asked for, and how many of them were `skipped`.
    """

    thresholds: dict[str, float]
    protect: float = 0.0

    def attach(self, model: nn.Module, undo: ExitStack, counts: Counter[str]) -> None:
        """Have `model` obey. Raises ModelError when a name is no module of the model, or no stack of experts."""
        importance = None
        if self.protect:
            importance = Importance(model, self.protect)
            undo.callback(importance.undo)
        for name, threshold in self.thresholds.items():
            try:
                module = model.get_submodule(name)
            except AttributeError:
                raise ModelError(
                    f"skip_experts: thresholds: {type(model).__name__} has no module {name}; the rule was made for "
                    f"another model, remove it from config.json"
                ) from None
            undo.callback(experts.replace(module, _forward(module, threshold, importance, counts)))

    def renumbered(self, blocks: Mapping[str, str | None]) -> SkipExperts:
        """The rule after blocks went: `blocks` maps a block's old name to the new one, None if it is gone."""
        found = {moved(name, blocks): threshold for name, threshold in self.thresholds.items()}
        return replace(self, thresholds={name: threshold for name, threshold in found.items() if name is not None})


def _forward(module: nn.Module, threshold: float, importance: Importance | None, counts: Counter[str]):
    def forward(states: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        kept = keep(weights, threshold, None if importance is None else importance.protected(states))
        counts["visits"] += kept.numel()
        counts["skipped"] += int((~kept).sum())
        gates = weights * kept
        gates = gates * (weights.sum(-1, keepdim=True) / gates.sum(-1, keepdim=True))
        result = torch.zeros_like(states)
        for tokens, visit in experts.visited(module, states, index, gates, kept):
            result.index_add_(0, tokens, (visit.output * visit.gate[:, None]).to(result.dtype))
        return result

    return forward


def keep(weights: Tensor, threshold: float, protected: Tensor | None = None) -> Tensor:
    """Which choices are made, bool `[tokens, k]`, from the router's weights `[tokens, k]` and the protected `[tokens]`.

    A token's first choice always is.
    """
    order = weights.argsort(dim=-1, descending=True)
    made = torch.empty_like(weights, dtype=torch.bool).scatter_(-1, order, ratio(weights) >= min(threshold, 1.0))
    return made if protected is None else made | protected[:, None]
