"""Tokens skip the experts that they hardly need: MC-MoE's online dynamic pruning (https://arxiv.org/abs/2410.06270)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from compress.calibrate.expert_totals import ratio
from compress.calibrate.experts import Forward, replace, visited
from compress.errors import ModelError
from compress.runtime.importance import Importance

KEY = "expert_skipping"
"""Where it stands in config.json: `thresholds`, module of experts → number, and `protect`, a share of the tokens."""


@dataclass
class Skipping:
    """How many visits of experts there were and how many of them were skipped."""

    visits: int = 0
    skipped: int = 0
    undoing: list[Callable[[], None]] = field(default_factory=list)

    def undo(self) -> None:
        """Put the model back."""
        while self.undoing:
            self.undoing.pop()()


def obey(model: nn.Module) -> Skipping:
    """Have `model` skip experts as its config says; a model whose config says nothing is left as it is.

    A token's choice is skipped when its weight is below the layer's threshold times that of the token's first choice;
    the weights that stay are scaled to the sum of all. Tokens among the `protect` most important of their text keep all
    choices; a text read token by token has nothing to compare them with, and protects none. Raises ModelError when the
    config names modules that are no stacks of experts.
    """
    asked = getattr(getattr(model, "config", None), KEY, None)
    counts = Skipping()
    if not asked:
        return counts
    importance = Importance(model, asked["protect"]) if asked["protect"] else None
    if importance is not None:
        counts.undoing.append(importance.undo)
    for name, threshold in asked["thresholds"].items():
        try:
            module = model.get_submodule(name)
        except AttributeError:
            counts.undo()
            raise ModelError(f"{KEY}: the model has no {name}; the config is another model's") from None
        counts.undoing.append(replace(module, _forward(module, threshold, importance, counts)))
    return counts


def _forward(module: nn.Module, threshold: float, importance: Importance | None, counts: Skipping) -> Forward:
    def forward(states: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        kept = keep(weights, threshold, None if importance is None else importance.protected(states))
        counts.visits += kept.numel()
        counts.skipped += int((~kept).sum())
        gates = weights * kept
        gates = gates * (weights.sum(-1, keepdim=True) / gates.sum(-1, keepdim=True))
        result = torch.zeros_like(states)
        for tokens, visit in visited(module, states, index, gates, kept):
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
