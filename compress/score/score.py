"""From criteria to scores: gives each criterion the tensors it asks for, reduces what it returns onto groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from compress.calibrate.site import keys_of
from compress.errors import InputError, ModelError
from compress.graph.families import Family, Graph
from compress.registry import Entry, criteria
from compress.registry.metadata import CriterionMetadata, Needing
from compress.score.clusters import Method
from compress.score.learning import learn
from compress.score.scopes.distances import measured
from compress.score.scoring import Call, Criterion, Normalize, Scoring, how_scored
from compress.score.views import Read, Reduce, Stats


def statistics_of(entry: Entry[Needing], arguments: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """Names of the statistics that a criterion, an allocator or a repair needs with these recipe arguments."""
    return entry.meta.statistics(arguments)


def needed(
    graph: Graph, families: Iterable[Family], entry: Criterion, arguments: Mapping[str, Any] | None = None
) -> dict[str, set[str]]:
    """What calibration has to gather: statistic → names of the tensors (or of the blocks) it is gathered at.

    Raises InputError where the criterion's scope refuses a family.
    """
    families, wanted = list(families), dict[str, set[str]]()
    for family in families:
        how_scored(entry.meta.scope).check(graph, family, entry)
    for name in entry.meta.statistics(arguments):
        keys = wanted.setdefault(name, set())
        for family in families:
            keys.update(keys_of(name, graph, family, entry.meta.is_scored))
    return wanted


def score(
    graph: Graph,
    families: Iterable[Family],
    criterion: Criterion,
    stats: Stats,
    read: Read,
    *,
    arguments: Mapping[str, Any] | None = None,
    reduce: Reduce = "sum",
    normalize: Normalize | None = None,
    seed: int = 0,
    clusters: Method = "linkage",
    learned: Mapping[str, Tensor] | None = None,
) -> dict[str, np.ndarray]:
    """Scores of every group, family name → float64 `[size]`, higher = keep.

    `read(name)` gives a stored tensor, `stats[statistic][name]` a statistic; one family's tensors are held at a time.
    `reduce` says how saliencies per weight become one number per group. `normalize="zscore"` standardises the scores of
    a family before they become groups' means: per input channel where the criterion is that fine, else per group.
    `clusters` says how experts are put together by a criterion that gives their distances. `learned` is what a
    criterion that learns has learned; without it, it learns from these families.
    Raises InputError where a criterion cannot score such families, ModelError where scores are not finite.
    """
    result, given_arguments = {}, dict(arguments or {})
    families = list(families)
    for family in families:
        if not criterion.meta.ranks(family.kind):
            raise InputError(f"{criterion.name} cannot score {family.kind} ({family.name}); {_cure(criterion, family)}")
    if learned is None and criterion.meta.scope.learns:
        learned = learn(graph, families, criterion, stats, read, arguments=arguments, seed=seed)
    for family in families:
        call = Call(criterion, arguments, kind=family.kind, seed=seed)
        given = Scoring(
            graph, family, criterion, call, stats, read, given_arguments, reduce, normalize, clusters, learned or {}
        )
        values = how_scored(criterion.meta.scope).score(given)
        if values.shape != (family.size,) or not np.isfinite(values).all():
            raise ModelError(f"{family.name}: {criterion.name} gave scores that are not {family.size} finite numbers")
        result[family.name] = values
    return result


def distances(
    graph: Graph,
    family: Family,
    criterion: Criterion,
    stats: Stats,
    read: Read,
    arguments: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """How unlike the experts of a family are to a criterion that makes clusters, `[size, size]`."""
    call = Call(criterion, arguments, kind=family.kind, seed=0)
    return measured(Scoring(graph, family, criterion, call, stats, read, dict(arguments or {})))


def _cure(criterion: Entry[CriterionMetadata], family: Family) -> str:
    """What to do where a criterion cannot rank a family."""
    if criterion.meta.scope.updates:
        return "it updates single weights; say `prune: weights` with it"
    can = [name for name in criteria.names() if criteria.get(name).meta.ranks(family.kind)]
    return f"{', '.join(can)} can"
