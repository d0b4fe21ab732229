"""A router of experts: its logits. Keys are the names of routers' weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import nn

from compress.calibrate.site import Site, Undo
from compress.calibrate.totals import double
from compress.graph.families import Family, Graph
from compress.graph.routers import router
from compress.registry import sites


@sites.add("router")
class Router(Site):
    """The sum over tokens of l·lᵀ, l the `logits`."""

    @staticmethod
    def keys(graph: Graph, family: Family, scored: Callable[[str], bool]) -> Iterable[str]:
        return [router(graph, family)] if family.kind == "experts" else []

    def attach(self, model: nn.Module) -> Iterator[Undo]:
        for key in self.places:
            yield model.get_submodule(key.rpartition(".")[0]).register_forward_pre_hook(self._hook(key)).remove

    def _hook(self, key: str) -> Callable[..., None]:
        def hook(module: Any, args: tuple[Any, ...]) -> None:
            if self.gather.paused:
                return
            totals, x = self.of(key), args[0].reshape(-1, args[0].shape[-1]).float()
            logits = nn.functional.linear(x, module.weight.float(), getattr(module, "bias", None))
            weight = self.gather.token_weight(key, len(x))
            totals.count(len(x), weight)
            totals.add("logits", double(logits.T @ (logits if weight is None else logits * weight[:, None])))

        return hook
