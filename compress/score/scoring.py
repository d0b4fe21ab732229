"""One family about to be scored, and the contract of a scope: what becomes of what its criteria return."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from torch import Tensor

from compress.calibrate.site import keys_of
from compress.errors import InputError
from compress.graph.families import Family, Graph
from compress.registry import Entry, scopes
from compress.registry.metadata import CriterionMetadata
from compress.registry.scope import Scope
from compress.score.clusters import Method
from compress.score.views import MemberView, Read, Reduce, Stats, statistic, views

Normalize = Literal["zscore"]
Criterion = Entry[CriterionMetadata]


class Call:
    """A criterion with its recipe arguments; it is handed, of what the engine has, what its signature names."""

    def __init__(self, criterion: Criterion, arguments: Mapping[str, Any] | None, **always: Any):
        self.bound: Callable[..., Tensor] = criterion.bind(dict(arguments or {}))
        self.always = always
        self.names = set(inspect.signature(criterion.target).parameters)

    def __call__(self, **given: Any) -> Tensor:
        given = {**self.always, **given}
        return self.bound(**{name: value for name, value in given.items() if name in self.names})


@dataclass(frozen=True)
class Scoring:
    """A family and what it is scored with.

    `read(name)` gives a stored tensor, `stats[statistic][name]` a statistic of `needs`. `reduce` says how saliencies
    per weight become one number per group, `normalize` how families are made comparable, `clusters` how experts are put
    together. `learned`: what a criterion that learns has learned of all families.
    """

    graph: Graph
    family: Family
    criterion: Criterion
    call: Call
    stats: Stats
    read: Read
    arguments: Mapping[str, Any] = field(default_factory=dict)
    reduce: Reduce = "sum"
    normalize: Normalize | None = None
    clusters: Method = "linkage"
    learned: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the criterion's statistics."""
        return self.criterion.meta.statistics(self.arguments)

    def views(self, *, every: bool = False) -> Iterator[MemberView]:
        """The members that the criterion looks at, or `every` one; read one at a time."""
        return views(self.graph, self.family, self.read, self.stats, self.criterion, self.needs, every=every)

    def expert_statistics(self) -> dict[str, Tensor]:
        """The criterion's statistics of the family's experts and of their router."""
        found = {}
        for name in self.needs:
            (key,) = keys_of(name, self.graph, self.family, self.criterion.meta.is_scored)
            found[name] = statistic(self.stats, name, key)
        return found

    def per_group(self, scores: Tensor) -> np.ndarray:
        """Scores per group `[size]` as float64, standardised over the family if that is asked for."""
        values = scores.double().cpu().numpy()
        if self.normalize == "zscore":
            values = (values - values.mean()) / max(values.std(), 1e-12)
        return values


class ScoredScope:
    """What is done with the criteria of one scope; a scope says what it can, and refuses the rest."""

    def check(self, graph: Graph, family: Family, criterion: Criterion) -> None:
        """Raises InputError, before anything is calibrated, where the family is none that such criteria can score."""

    def score(self, given: Scoring) -> np.ndarray:
        """Scores of a family's groups, float64 `[size]`, higher = keep."""
        raise InputError(f"{given.criterion.name} cannot score {given.family.kind} ({given.family.name})")

    def saliency(self, call: Call, key: str, weight: Tensor, stats: Mapping[str, Tensor]) -> Tensor:
        """Saliency of every weight of one matrix `[out, in]`, which is called `key`; statistics are turned like it."""
        raise InputError(f"{key}: this criterion tells no single weights apart")


def how_scored(scope: Scope) -> ScoredScope:
    """What `compress.score.scopes` has for a scope."""
    return scopes.get(str(scope)).target()
