"""A site: where statistics are read while a model runs. What it sees it adds to sums; statistics follow from these."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from torch import Tensor, nn

from compress.calibrate.distributed import add_up
from compress.calibrate.objective import LOSS, Objective
from compress.calibrate.totals import Totals
from compress.errors import ModelError
from compress.graph.families import Family, Graph
from compress.registry import sites, statistics

if TYPE_CHECKING:
    from compress.inputs.kind import Inputs
    from compress.model.weights import Weights
    from compress.stream.baton import Call, Walk

Undo = Callable[[], None]


class Gathering(Protocol):
    """The run over the calibration data that sites are of; see `compress.calibrate.gather.Gather`."""

    weights: Weights
    inputs: Inputs
    sequences: int
    done: Callable[[str, str, Tensor], None]
    units: Mapping[str, list[Tensor]]
    waited: frozenset[str]
    paused: bool

    def token_weight(self, key: str, count: int, walk: Walk | None = None) -> Tensor | None:
        """How much each of the `count` tokens of a batch counts, `[count]`; None where all count the same."""
        ...


class Site(ABC):
    """One site during one run over the calibration data: `wanted` are the statistics to gather, by key.

    It adds to `of(key)` what `sums(key)` names, of every batch, and nothing while `gather.paused`.
    `gather.token_weight(key, count)` says how much each of the batch's tokens counts.
    """

    objective: ClassVar[Objective] = LOSS
    """Of sites `backward`: what is differentiated; those of one objective share a pass."""

    def __init__(self, gather: Gathering, wanted: Mapping[str, frozenset[str]]) -> None:
        self.gather, self.places = gather, frozenset(wanted)
        self.wanted = dict(wanted)  # those that have not been handed out
        self.totals: dict[str, Totals] = {}

    @staticmethod
    @abstractmethod
    def keys(graph: Graph, family: Family, scored: Callable[[str], bool]) -> Iterable[str]:
        """Names of what a family's statistics are read at; `scored` says which members' roles count."""

    @abstractmethod
    def attach(self, model: nn.Module) -> Iterable[Undo]:
        """Watch `model` at `places` from now on; what comes back ends it.

        Raises ModelError where a place cannot be watched.
        """

    def visit(self, block: str, call: Call, output: Any) -> None:
        """One batch went through a block, which gave `output` for the `call`; few sites need to know."""
        return None

    def gradient(self, key: str, gradient: Tensor, walk: Walk) -> None:
        """The gradient of a batch's mean loss (where squares are summed, of one sample's), for sites `backward`."""
        raise TypeError(f"{type(self).__name__} is declared `backward`, so it takes gradients")

    def together(self, key: str, module: nn.Module, given: list[tuple[Tensor, Walk]]) -> None:
        """All batches wait at the projection `key`, which is `given` these; for sites that `waits`: hand out values."""
        raise TypeError(f"{type(self).__name__} declares that it `waits`, so it takes what all batches give")

    def complete(self, totals: Totals) -> None:
        """All batches of this process are in `totals`: bring sums into the form in which processes add them up."""
        return None

    def untouched(self, key: str) -> Totals | None:
        """The sums of a key that no batch came by; None where that is a mistake."""
        return None

    def of(self, key: str) -> Totals:
        """The sums at a key. Raises ModelError where they have been handed out."""
        self.check(key)
        return self.totals.setdefault(key, Totals(self.gather.sequences))

    def check(self, key: str) -> None:
        """Raise ModelError where a key's sums have been handed out."""
        if key not in self.wanted:
            raise ModelError(f"{key}: its block runs again after it was left; please report this architecture")

    def sums(self, key: str) -> frozenset[str]:
        """Names of the sums that are wanted at a key."""
        return frozenset().union(*(statistics.get(name).meta.sums for name in self.wanted[key]))

    def leave(self, key: str, shared: dict[int, Tensor]) -> None:
        """Nothing will be added at a key any more: hand out its statistics. `shared` is as `add_up` has it."""
        totals = self.totals.pop(key, None) or self.untouched(key)
        if totals is None:
            raise ModelError(f"{key}: the model's forward does not use it, so nothing can be gathered there")
        self.hand_out(key, self.values(key, totals, shared))

    def values(self, key: str, totals: Totals, shared: dict[int, Tensor]) -> dict[str, Tensor]:
        """The statistics wanted of a key, once all batches' sums are in `totals`."""
        self.complete(totals)
        add_up(totals, shared)
        if isinstance(totals.tokens, Tensor):
            totals.tokens = totals.tokens.clamp_min(1)  # an expert that no token visited has sums of zero
        return {name: statistics.get(name).target(totals).float().cpu() for name in self.wanted[key]}

    def hand_out(self, key: str, values: Mapping[str, Tensor]) -> None:
        """These are the statistics of a key."""
        for name in sorted(self.wanted.pop(key)):
            self.gather.done(name, key, values[name])


def site_of(statistic: str) -> type[Site]:
    """The site that a statistic is read at."""
    return cast(type[Site], sites.get(statistics.get(statistic).meta.at).target)


def keys_of(statistic: str, graph: Graph, family: Family, scored: Callable[[str], bool]) -> Iterable[str]:
    """Where a statistic of a family is read; `scored` says which members' roles count."""
    return site_of(statistic).keys(graph, family, scored)


def by_objective(wanted: Mapping[str, set[str]]) -> dict[Objective, dict[str, set[str]]]:
    """What is wanted of statistics (name → keys), by what is differentiated for them."""
    found: dict[Objective, dict[str, set[str]]] = {}
    for name, keys in wanted.items():
        found.setdefault(site_of(name).objective, {})[name] = keys
    return found


def at_sites(names: Iterable[str], **declared: bool) -> list[str]:
    """Those of the statistics whose sites' metadata is as `declared`, as in `backward=True`."""
    metas = {name: sites.get(statistics.get(name).meta.at).meta for name in names}
    return [name for name, meta in metas.items() if all(getattr(meta, key) == value for key, value in declared.items())]
