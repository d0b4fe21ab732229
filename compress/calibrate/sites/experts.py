"""What the experts of a block do. Keys are the names of modules of stacked experts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from compress.calibrate.expert_totals import add_visits
from compress.calibrate.experts import Tell, Visit, watch
from compress.calibrate.site import Site, Undo
from compress.graph.families import Family, Graph
from compress.graph.routers import experts_module
from compress.registry import sites


@sites.add("experts", names_tensors=False)
class Experts(Site):
    """The sums of `compress.calibrate.expert_totals.add_visits`."""

    @staticmethod
    def keys(graph: Graph, family: Family, scored: Callable[[str], bool]) -> Iterable[str]:
        return [experts_module(graph, family)] if family.kind == "experts" else []

    def attach(self, model: nn.Module) -> Iterator[Undo]:
        for key in self.places:
            yield watch(model.get_submodule(key), self._tell(key))

    def _tell(self, key: str) -> Tell:
        def tell(module: Any, chosen: Tensor, weights: Tensor, visits: list[Visit]) -> None:
            if not self.gather.paused:
                token_weight = self.gather.token_weight(key, len(chosen))
                add_visits(self.of(key), chosen, weights, visits, module.down_proj.shape[0], token_weight)

        return tell
