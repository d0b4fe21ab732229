"""What a projection is given. Keys are the names of projections' weights, of stacked experts' too.

To an embedding the input is the one-hot token.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from compress.calibrate.columns import flat_matrix, is_convolution, rows_of
from compress.calibrate.expert_totals import add_moments
from compress.calibrate.experts import Tell, Visit, watch
from compress.calibrate.site import Site, Undo
from compress.calibrate.totals import Totals, add_gram, mirror, moments, projection
from compress.errors import ModelError
from compress.graph.families import Family, Graph
from compress.graph.uses import uses
from compress.model.weights import Weights
from compress.registry import sites
from compress.stream.baton import Walk

MOMENTS = frozenset({"sum", "square", "absolute"})


@sites.add("input", waits=True)
class Input(Site):
    """Sums over tokens of x (`sum`), x² (`square`), |x| (`absolute`), x·xᵀ (`gram`), and of the `projection`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._seen: tuple[Any, dict[str, Tensor]] = (lambda: None, {})
        self._multiplied: tuple[Any, str] = (lambda: None, "")
        self._former: tuple[list[Any], dict[str, Tensor]] = ([], {})  # what was given last, and what came of it

    @staticmethod
    def keys(graph: Graph, family: Family, scored: Callable[[str], bool]) -> Iterable[str]:
        return (tensor for tensor, role, _ in uses(graph, family) if scored(role))

    def attach(self, model: nn.Module) -> Iterator[Undo]:
        weights = self.gather.weights
        stacked = {key for key in self.places if len(weights.current(key).shape) == 3 and not _convolves(model, key)}
        for key in self.places - stacked:
            if key.rpartition(".")[0] not in self.gather.waited:
                owner = owner_of(model, weights, key)
                yield owner.register_forward_pre_hook(self._hook(key), with_kwargs=True).remove
        for name in {key.rpartition(".")[0] for key in stacked}:
            yield watch(model.get_submodule(name), self._tell(name, stacked))

    def together(self, key: str, module: nn.Module, given: list[tuple[Tensor, Walk]]) -> None:
        """Where they are the very tensors that the projection before was given (k after q), its sums hold here too."""
        self.check(key)
        if not self._same(key, [x for x, _ in given]):
            self._former = [], {}  # freed before the next ones grow
            totals = Totals(self.gather.sequences)
            for x, walk in given:
                self._add(key, totals, module, x, walk)
            self._former = [weakref.ref(x) for x, _ in given], self.values(key, totals, {})
        self.hand_out(key, self._former[1])

    def complete(self, totals: Totals) -> None:
        if "gram" in totals.sums:
            mirror(totals["gram"])

    def _same(self, key: str, given: list[Tensor]) -> bool:
        """Whether what is wanted of `key` is known of the projection before; `projection` is of one weight alone."""
        seen, values = self._former
        known = self.wanted[key] <= values.keys() and "projection" not in self.sums(key)
        return known and len(seen) == len(given) and all(last() is x for last, x in zip(seen, given, strict=True))

    def _hook(self, key: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not self.gather.paused:
                self._add(key, self.of(key), module, args[0] if args else next(iter(kwargs.values())))

        return hook

    @torch.no_grad()
    def _add(self, key: str, totals: Totals, module: nn.Module, given: Tensor, walk: Walk | None = None) -> None:
        """Add what one batch gives a projection (tokens, to an embedding) to its sums."""
        names = self.sums(key)
        if isinstance(module, nn.Embedding):
            weight = self.gather.token_weight(key, given.numel(), walk)
            totals.count(given.numel(), weight)
            counts = torch.bincount(given.flatten(), weight, minlength=module.num_embeddings).double()
            found = dict.fromkeys(names & MOMENTS, counts)
        elif is_convolution(module):
            self._add_windows(key, totals, module, given.detach())
            return
        else:
            x = given.detach().reshape(-1, given.shape[-1])
            weight = self.gather.token_weight(key, len(x), walk)
            totals.count(len(x), weight)
            found = self._moments(given, x, names, weight)
            if "gram" in names:
                self._gram(key, totals, given, x, weight)
            if "projection" in names:
                found["projection"] = projection(x, flat_matrix(module), self.gather.units[key], weight)
        for name, value in found.items():
            totals.add(name, value)

    def _add_windows(self, key: str, totals: Totals, module: nn.Module, given: Tensor) -> None:
        """Add what a convolution multiplies, window by window; of a grouped one each sum is `[groups, …]`."""
        names = self.sums(key)
        for rows in rows_of(module, given):
            self.gather.token_weight(key, rows.shape[-2])  # a window is no token: refuses weights of tokens
            totals.count(rows.shape[-2], None)
            parts = rows if rows.dim() == 3 else rows[None]
            found = [moments(x, names & MOMENTS) for x in parts] if names & MOMENTS else [{} for _ in parts]
            if "projection" in names:
                if len(parts) > 1:
                    raise ModelError(f"{key}: is a grouped convolution, of which no projection is gathered")
                found[0]["projection"] = projection(rows, flat_matrix(module), self.gather.units[key])
            for name in found[0]:
                values = [one[name] for one in found]
                totals.add(name, torch.stack(values) if rows.dim() == 3 else values[0])
            if "gram" in names:
                shape = (*rows.shape[:-2], rows.shape[-1], rows.shape[-1])
                gram = totals.sums.setdefault("gram", torch.zeros(shape, device=rows.device))
                for own, x in zip(gram if rows.dim() == 3 else gram[None], parts, strict=True):
                    add_gram(own, x)

    def _gram(self, key: str, totals: Totals, given: Tensor, x: Tensor, weight: Tensor | None) -> None:
        """Adds xᵀx; weights that are given the very same tensor (q, k and v) share one sum."""
        last, first = self._multiplied
        if last() is given and first != key and first in self.totals:
            known = self.totals[first].sums["gram"]
            if totals.sums.setdefault("gram", known) is known:
                return
        else:
            self._multiplied = (weakref.ref(given), key)
        if "gram" not in totals.sums:
            totals.sums["gram"] = torch.zeros(x.shape[1], x.shape[1], device=x.device)
        add_gram(totals["gram"], x, weight)

    def _moments(self, given: Tensor, x: Tensor, names: frozenset[str], weight: Tensor | None) -> dict[str, Tensor]:
        """Moments of x, those of the tensor seen last again: q, k and v are given the same one."""
        names = names & MOMENTS
        last, found = self._seen
        if last() is not given or not names <= found.keys():
            found = moments(x, names, weight) if names else {}
            self._seen = (weakref.ref(given), found)
        return {name: found[name] for name in names}

    def _tell(self, name: str, stacked: set[str]) -> Tell:
        """Adds up moments of what each stacked projection of one module is given."""
        inside = [key for key in stacked if key.rpartition(".")[0] == name]

        def tell(module: nn.Module, chosen: Tensor, weights: Tensor, visits: list[Visit]) -> None:
            if self.gather.paused:
                return
            for key in inside:
                down, experts = key.endswith("down_proj"), self.gather.weights.current(key).shape[0]
                weight = self.gather.token_weight(key, len(chosen))
                add_moments(self.of(key), self.sums(key), visits, down, experts, weight)

        return tell


def _convolves(model: nn.Module, key: str) -> bool:
    return is_convolution(model.get_submodule(key.rpartition(".")[0]))


def owner_of(model: nn.Module, weights: Weights, key: str) -> nn.Module:
    """The projection that multiplies by the weight `key`; where there is none, the embedding that looks up in it."""
    from transformers.pytorch_utils import Conv1D

    owners = [model.get_submodule(name.rpartition(".")[0]) for name in weights.aliases(key) if name.endswith("weight")]
    for kinds in ((nn.Linear, Conv1D), (nn.Embedding,)):
        for owner in owners:
            if isinstance(owner, kinds) or (nn.Embedding not in kinds and is_convolution(owner)):
                return owner
    raise ModelError(f"{key}: is no weight of a plain projection, so statistics of its input are not gathered")
