"""What is left of one matrix: its weights with the least saliency zero, or what an update makes of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from compress.graph.families import Family, Graph
from compress.recipe.weights import PruneWeights
from compress.registry import Entry, criteria
from compress.score import call_with, statistics_of
from compress.sparse.masks import in_blocks, smallest
from compress.sparse.matrices import turned
from compress.views import Stats, is_stack, statistic


class Zeroing:
    """A step's criterion and pattern, applied to one stored tensor at a time."""

    def __init__(self, graph: Graph, step: PruneWeights, inputs: Mapping[str, int], seed: int) -> None:
        self.graph, self.step, self.inputs, self.seed = graph, step, inputs, seed
        self.criterion: Entry = criteria.get(step.by.name)
        self.needs = statistics_of(self.criterion, step.by.arguments)

    @property
    def updates(self) -> bool:
        """Whether the weights that stay change."""
        return self.criterion.meta["scope"] == "update"

    def __call__(self, name: str, stored: Tensor, share: float, stats: Stats) -> Tensor:
        """The tensor as it is to be stored. Raises InputError where a pattern does not divide it."""
        dim = self.inputs[name]
        own = {need: self._oriented(statistic(stats, need, name), stored, dim) for need in self.needs}
        weight = turned(stored, dim)
        if is_stack(self.graph, name):
            made = [
                self._matrix(f"{name}/{i}", name, one, {need: value[i] for need, value in own.items()}, share)
                for i, one in enumerate(weight)
            ]
            return turned(torch.stack(made), dim).contiguous()
        return turned(self._matrix(name, name, weight, own, share), dim).contiguous()

    def _matrix(self, key: str, name: str, weight: Tensor, stats: Mapping[str, Tensor], share: float) -> Tensor:
        """`[out, in]` → the same, in its dtype."""
        block = self.step.block
        if block is not None and weight.shape[1] % block[1]:
            in_blocks(weight, *block, name)  # says what is wrong
        wide = weight.float()
        call = call_with(self.criterion, self.step.by.arguments, self.seed)
        if self.updates:
            return call(weight=wide, share=share, block=block, **stats).to(weight.dtype)
        if self.criterion.meta["scope"] == "families":
            saliency = call(family=Family(key, "other", weight.numel())).view_as(wide)
        else:
            saliency = call(weight=wide, **stats)
        gone = in_blocks(saliency, *block, name) if block else smallest(saliency, share, self.step.compare)
        return weight.masked_fill(gone, 0)

    def _oriented(self, value: Tensor, stored: Tensor, dim: int) -> Tensor:
        """A statistic of the weight's own shape is turned like it."""
        per_weight = value.shape == stored.shape and value.dim() == stored.dim()
        gram = stored.dim() == 2 and self.criterion.meta["scope"] == "update"
        return value.float() if not per_weight or gram else turned(value.float(), dim)
