"""Relevance of what a projection is given: input × gradient of the model's answer, by the rules of relevance
propagation. Keys are the projections' weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from compress.calibrate.columns import inputs, is_convolution, per_column
from compress.calibrate.objective import Objective
from compress.calibrate.site import Site, Undo
from compress.calibrate.sites.input import owner_of
from compress.calibrate.totals import Totals, double
from compress.graph.families import Family, Graph
from compress.graph.uses import uses
from compress.inputs.batch import Batch
from compress.registry import sites
from compress.relevance.rules import COMPOSITE, EPSILON, GAMMA, POSITIVE
from compress.stream.baton import Walk
from compress.tasks.kind import Task


def answer(task: Task, output: Any, batch: Batch) -> Tensor:
    """What is explained."""
    return task.answer(output, batch)


class OfInputs(Site):
    """The sum `relevance` over samples of |what each input channel's tokens have together|.

    Its sign differs from sample to sample: averaged with it, as the paper does, what matters most cancels out. On the
    way back every batch is one sample.
    """

    @staticmethod
    def keys(graph: Graph, family: Family, scored: Callable[[str], bool]) -> Iterable[str]:
        return (tensor for tensor, role, _ in uses(graph, family) if scored(role))

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._columns: dict[str, Tensor] = {}  # zeros

    def attach(self, model: nn.Module) -> Iterable[Undo]:
        for key in self.places:
            owner = owner_of(model, self.gather.weights, key)
            self._columns[key] = torch.zeros_like(per_column(owner, torch.zeros(inputs(owner))))
            yield owner.register_forward_pre_hook(self._hook(key)).remove

    def gradient(self, key: str, gradient: Tensor, walk: Walk) -> None:
        """What the weight itself gets is of no use here."""

    def untouched(self, key: str) -> Totals:
        """The answer does not depend on it."""
        return Totals(self.gather.sequences, 1, {"relevance": self._columns[key].double()})

    def _hook(self, key: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if not torch.is_grad_enabled():
                return None
            # On the way back, when the block is computed anew. The first one is given embeddings, without a gradient;
            # others may read the same tensor, whose gradients are not this projection's.
            x: Tensor = args[0] if args[0].requires_grad else args[0].detach().requires_grad_()
            own = x.view_as(x)
            own.register_hook(lambda gradient: self._add(key, module, x.detach(), gradient.detach()))
            return own, *args[1:]

        return hook

    @torch.no_grad()
    def _add(self, key: str, module: nn.Module, x: Tensor, gradient: Tensor) -> None:
        relevance = x.float() * gradient.float()
        wide = relevance.movedim(1, -1) if is_convolution(module) else relevance
        self.of(key).count(wide.shape[:-1].numel(), None)
        self.of(key).add("relevance", per_column(module, double(wide.flatten(0, -2).sum(0)).abs()))


@sites.add("relevance", backward=True, paper="2402.05602")
class Relevance(OfInputs):
    """By the ε-rule, ε → 0: in proportion to what each input contributes."""

    objective = Objective(answer, EPSILON)


@sites.add("relevance_gamma", backward=True, paper="2408.12568")
class GammaRelevance(OfInputs):
    """By the γ-rule, γ = 0.25: contributions of a result's own sign count more."""

    objective = Objective(answer, GAMMA)


@sites.add("relevance_positive", backward=True, paper="2408.12568")
class PositiveRelevance(OfInputs):
    """By the z⁺-rule: positive contributions alone."""

    objective = Objective(answer, POSITIVE)


@sites.add("relevance_composite", backward=True, paper="2408.12568")
class CompositeRelevance(OfInputs):
    """By the γ-rule in the first half of the blocks, by the ε-rule behind it."""

    objective = Objective(answer, COMPOSITE)
