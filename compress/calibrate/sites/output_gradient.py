"""The gradient of the loss by what a projection puts out. Keys are the projections' weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compress.calibrate.columns import outputs_of, widths
from compress.calibrate.site import Gathering, Site, Undo
from compress.calibrate.sites.input import owner_of
from compress.calibrate.totals import Totals, add_gram, mirror
from compress.graph.families import Family, Graph
from compress.graph.uses import uses
from compress.registry import sites
from compress.stream.baton import Walk


@sites.add("output_gradient", backward=True)
class OutputGradient(Site):
    """The `output_gram` of a plain projection: Σ over tokens of g·gᵀ, g the gradient of the summed loss by the token's
    output. Tokens are weighed by the loss itself, see `compress.tasks`."""

    def __init__(self, gather: Gathering, wanted: Mapping[str, frozenset[str]]) -> None:
        super().__init__(gather, wanted)
        self._width: dict[str, int] = {}

    @staticmethod
    def keys(graph: Graph, family: Family, scored: Callable[[str], bool]) -> Iterable[str]:
        return (tensor for tensor, role, _ in uses(graph, family) if scored(role))

    def attach(self, model: nn.Module) -> Iterable[Undo]:
        for key in self.places:
            owner = owner_of(model, self.gather.weights, key)
            self._width[key] = widths(owner)
            yield owner.register_forward_hook(self._hook(key)).remove

    def gradient(self, key: str, gradient: Tensor, walk: Walk) -> None:
        """What the weight itself gets is of no use here."""

    def complete(self, totals: Totals) -> None:
        mirror(totals["output_gram"])

    def untouched(self, key: str) -> Totals:
        """The loss does not depend on it."""
        width = self._width[key]
        return Totals(self.gather.sequences, 1, {"output_gram": torch.zeros(width, width)})

    def _hook(self, key: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if output.requires_grad:  # on the way back, when the block is computed anew
                output.register_hook(lambda gradient: self._add(key, outputs_of(module, gradient.detach()).float()))

        return hook

    @torch.no_grad()
    def _add(self, key: str, g: Tensor) -> None:
        totals = self.of(key)
        g = g * len(g)  # the loss is a mean over the batch's tokens
        totals.count(len(g), None)
        if "output_gram" not in totals.sums:
            totals.sums["output_gram"] = torch.zeros(g.shape[1], g.shape[1], device=g.device)
        add_gram(totals["output_gram"], g)
