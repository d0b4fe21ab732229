"""The gradient of the loss by what a projection puts out. Keys are the projections' weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compress.calibrate.columns import TRANSPOSED, by_group, outputs_of, widths
from compress.calibrate.site import Gathering, Site, Undo
from compress.calibrate.sites.input import owner_of
from compress.calibrate.totals import Totals, add_gram, mirror
from compress.errors import ModelError
from compress.graph.families import Family, Graph
from compress.graph.uses import uses
from compress.registry import sites
from compress.stream.baton import Walk


@sites.add("output_gradient", backward=True)
class OutputGradient(Site):
    """The `output_gram` of a projection: Σ over tokens of g·gᵀ, g the gradient of the summed loss by the token's
    output; of a grouped convolution one for each group, over positions. Tokens are weighed by the loss itself, see
    `compress.tasks`."""

    def __init__(self, gather: Gathering, wanted: Mapping[str, frozenset[str]]) -> None:
        super().__init__(gather, wanted)
        self._shape: dict[str, tuple[int, ...]] = {}

    @staticmethod
    def keys(graph: Graph, family: Family, scored: Callable[[str], bool]) -> Iterable[str]:
        return (tensor for tensor, role, _ in uses(graph, family) if scored(role))

    def attach(self, model: nn.Module) -> Iterable[Undo]:
        for key in self.places:
            owner = owner_of(model, self.gather.weights, key)
            if isinstance(owner, TRANSPOSED) and owner.groups > 1:
                raise ModelError(
                    f"{key}: is a grouped transposed convolution, whose outputs' curvature is not gathered; choose a "
                    "criterion that does not need it, e.g. taylor"
                )
            self._shape[key] = _gram_shape(owner)
            yield owner.register_forward_hook(self._hook(key)).remove

    def gradient(self, key: str, gradient: Tensor, walk: Walk) -> None:
        """What the weight itself gets is of no use here."""

    def complete(self, totals: Totals) -> None:
        mirror(totals["output_gram"])

    def untouched(self, key: str) -> Totals:
        """The loss does not depend on it."""
        return Totals(self.gather.sequences, 1, {"output_gram": torch.zeros(self._shape[key])})

    def _hook(self, key: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if output.requires_grad:  # on the way back, when the block is computed anew
                output.register_hook(lambda gradient: self._add(key, module, gradient.detach()))

        return hook

    @torch.no_grad()
    def _add(self, key: str, module: nn.Module, gradient: Tensor) -> None:
        totals = self.of(key)
        g = outputs_of(module, gradient).float()
        g = by_group(module, g * len(g))  # the loss is a mean over the batch's tokens
        totals.count(g.shape[-2], None)
        gram = totals.sums.setdefault("output_gram", torch.zeros(self._shape[key], device=g.device))
        for own, rows in zip(gram, g, strict=True) if g.dim() == 3 else [(gram, g)]:
            add_gram(own, rows)


def _gram_shape(module: nn.Module) -> tuple[int, ...]:
    """`[out, out]`, of a grouped convolution `[groups, out / groups, out / groups]`."""
    *groups, _, width = by_group(module, torch.empty(1, widths(module))).shape
    return *groups, width, width
