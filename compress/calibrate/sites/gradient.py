"""The gradient of the loss, by a weight. Keys are tensors' names."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from compress.calibrate.site import Site, Undo
from compress.calibrate.totals import Totals
from compress.graph.families import Family, Graph
from compress.graph.uses import uses
from compress.registry import sites
from compress.stream.baton import Walk


@sites.add("gradient", backward=True, per_weight=True)
class Gradient(Site):
    """Sums over samples of the `gradient` of the mean loss, and of its square (`fisher`).

    For the latter every batch is one sample. Tokens are weighed by the loss itself, see `compress.tasks`.
    """

    @staticmethod
    def keys(graph: Graph, family: Family, scored: Callable[[str], bool]) -> Iterable[str]:
        return (tensor for tensor, role, _ in uses(graph, family) if scored(role))

    def attach(self, model: nn.Module) -> Iterable[Undo]:
        return ()

    def gradient(self, key: str, gradient: Tensor, walk: Walk) -> None:
        totals, names = self.of(key), self.sums(key)
        if "gradient" in names:
            totals.add("gradient", gradient.float() * walk.rows)
        if "fisher" in names and walk.rows == 1:
            tokens = walk.rows * self.gather.inputs.length(walk.batch)
            totals.count(tokens, self.gather.token_weight(key, tokens, walk))
            totals.add("fisher", gradient.float().square())

    def untouched(self, key: str) -> Totals:
        """Gradients of what the loss does not depend on (a pooler behind the hidden states) are zero."""
        zeros = torch.zeros(self.gather.weights.current(key).shape)
        return Totals(self.gather.sequences, 0, {name: zeros.clone() for name in ("gradient", "fisher")})
