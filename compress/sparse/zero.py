"""What is left of one matrix: its weights with the least saliency zero, or what an update makes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from compress.graph.families import Graph
from compress.recipe.weights import PruneWeights
from compress.registry import criteria
from compress.score.scoring import Call, Criterion, how_scored
from compress.score.views import Stats, statistic
from compress.sparse.masks import check_fit, in_blocks, in_tiles, smallest
from compress.sparse.matrices import as_matrices, as_stored, has_parts, shapes


class Zeroing:
    """A step's criterion and pattern, applied to one stored tensor at a time.

    Raises InputError where the pattern does not divide one of the tensors `inputs`.
    """

    def __init__(self, graph: Graph, step: PruneWeights, inputs: Mapping[str, int], seed: int) -> None:
        self.graph, self.step, self.inputs = graph, step, inputs
        self.criterion: Criterion = criteria.get(step.by.name)
        self.needs = self.criterion.meta.statistics(step.by.arguments)
        self._call = Call(self.criterion, step.by.arguments, kind="other", seed=seed)
        tile = (1, step.zeros_of[1]) if step.zeros_of else step.tile
        field = f"pattern: {step.pattern}" if step.zeros_of else f"block: {step.block}"
        if tile is not None:
            for name, shape in shapes(graph, inputs).items():
                check_fit(name, shape, tile, field)

    @property
    def updates(self) -> bool:
        """Whether the weights that stay change."""
        return self.criterion.meta.scope.updates

    def __call__(self, name: str, stored: Tensor, share: float, stats: Stats) -> Tensor:
        """The tensor as it is to be stored; what comes in as `stored` is the caller's no longer."""
        made = [self._matrix(key, name, weight, own, share) for key, weight, own in self._parts(name, stored, stats)]
        if not self.updates:
            return stored  # zeroed in place
        whole = torch.stack(made) if has_parts(self.graph, name) else made[0]
        return as_stored(self.graph, name, self.inputs[name], whole).contiguous()

    def saliency(self, name: str, stored: Tensor, stats: Stats) -> Tensor:
        """What the criterion makes of each weight, `[out, in]` or `[parts, out, in]`, float32."""
        made = [self._saliency(key, weight.float(), own) for key, weight, own in self._parts(name, stored, stats)]
        return torch.stack(made) if has_parts(self.graph, name) else made[0]

    def _parts(self, name: str, stored: Tensor, stats: Stats) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        """The matrices `[out, in]` of a tensor with their keys and statistics: one, or one for each of its parts."""
        own = {need: self._oriented(name, statistic(stats, need, name), stored) for need in self.needs}
        weight = as_matrices(self.graph, name, self.inputs[name], stored)
        if not has_parts(self.graph, name):
            yield name, weight, own
            return
        for i, one in enumerate(weight):
            yield f"{name}/{i}", one, {need: value[i] for need, value in own.items()}

    def _matrix(self, key: str, name: str, weight: Tensor, stats: Mapping[str, Tensor], share: float) -> Tensor:
        """`[out, in]` → the same, in its dtype; in place where no weight that stays changes."""
        step = self.step
        if self.updates:
            return self._call(weight=weight.float(), share=share, block=step.zeros_of, **stats).to(weight.dtype)
        saliency = self._saliency(key, weight.float(), stats)
        if step.zeros_of is not None:
            gone = in_blocks(saliency, *step.zeros_of)
        elif step.tile is not None:
            gone = in_tiles(saliency, share, step.tile)
        else:
            gone = smallest(saliency, share, step.compare or "row")
        return weight.masked_fill_(gone, 0)

    def _saliency(self, key: str, weight: Tensor, stats: Mapping[str, Tensor]) -> Tensor:
        return how_scored(self.criterion.meta.scope).saliency(self._call, key, weight, stats)

    def _oriented(self, name: str, value: Tensor, stored: Tensor) -> Tensor:
        """A statistic of the weight's own shape is turned like it."""
        per_weight = value.shape == stored.shape and value.dim() == stored.dim()
        gram = stored.dim() == 2 and self.updates
        if not per_weight or gram:
            return value.float()
        return as_matrices(self.graph, name, self.inputs[name], value.float())
