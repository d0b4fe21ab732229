"""A whole block: how far it turns the residual stream. Keys are blocks' names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compress.calibrate.site import Site, Undo
from compress.calibrate.totals import cosines
from compress.errors import ModelError
from compress.graph.families import Family, Graph
from compress.registry import sites
from compress.stream.baton import Call


@sites.add("block", names_tensors=False)
class Block(Site):
    """Sums over tokens of `cosine` and `angle` between what the block takes and what it gives."""

    @staticmethod
    def keys(graph: Graph, family: Family, scored: Callable[[str], bool]) -> Iterable[str]:
        return graph.blocks

    def attach(self, model: nn.Module) -> Iterable[Undo]:
        return ()

    def visit(self, block: str, call: Call, output: Any) -> None:
        if block not in self.places:
            return
        before, after = _hidden((call.args, call.kwargs.get("hidden_states"), call.kwargs)), _hidden(output)
        if before.dim() > 3 and self._channels_first(block, after):
            before, after = before.movedim(1, -1), after.movedim(1, -1)
        if before.shape != after.shape:  # a stage's first layer leaves nothing as it was: the cosine counts as 0
            before, after = torch.ones_like(after), torch.zeros_like(after)
        totals, tokens = self.of(block), before.shape[:-1].numel()
        weight = self.gather.token_weight(block, tokens)
        totals.count(tokens, weight)
        for name, value in cosines(before, after, weight).items():
            if name in self.sums(block):
                totals.add(name, value)

    def _channels_first(self, block: str, states: Tensor) -> bool:
        """Whether an image's states `[samples, channels, …]` are given; else channels are last."""
        weights = self.gather.weights
        sizes = Counter(size for name in weights.names(block) for size in weights.current(name).shape)
        return sizes[states.shape[1]] > sizes[states.shape[-1]]


def _hidden(values: Any) -> Tensor:
    """The residual stream among a block's inputs or outputs: the first floating tensor with a hidden dimension."""
    for value in tree_leaves(values):
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() >= 2:
            return value
    raise ModelError("a block takes or gives no hidden states, so they cannot be compared")
