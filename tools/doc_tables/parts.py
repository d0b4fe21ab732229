"""What a recipe may name, from the registries: what each part does, takes and needs, and whose it is."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from compress import registry
from compress.registry import Entry, Registry
from compress.registry.metadata import CriterionMetadata

from .markdown import paper, table


def criteria() -> str:
    """Criteria."""
    rows = [
        (*_named(entry), _ranks(entry.meta), ", ".join(_reads(entry)) or "nothing", _paper(entry))
        for entry in _entries(registry.criteria)
    ]
    return table(("criterion", "score", "ranks", "needs", "paper"), rows)


def allocators() -> str:
    """Allocators of units."""
    return _table(registry.allocators, "allocator")


def ratios() -> str:
    """Layer ratios of weights."""
    return _table(registry.ratios, "layer ratio")


def repairs() -> str:
    """Repairs."""
    return _table(registry.repairs, "repair")


def sources() -> str:
    """Calibration texts."""
    return table(("source", "what it reads"), [_named(entry) for entry in _entries(registry.sources)])


def token_scores() -> str:
    """Scores of visual tokens."""
    return _token_parts(registry.token_scores, "score")


def token_selects() -> str:
    """Selections of visual tokens."""
    return _token_parts(registry.token_selects, "selection")


def token_residuals() -> str:
    """What becomes of visual tokens that are not kept."""
    return _token_parts(registry.token_residuals, "residual")


def _token_parts(kind: Registry[Any], word: str) -> str:
    return table((word, "what it does", "paper"), [(*_named(entry), _paper(entry)) for entry in _entries(kind)])


def statistics() -> str:
    """Statistics, and which parts ask for each."""
    asked: dict[str, list[str]] = {}
    for kind in (registry.criteria, registry.allocators, registry.ratios, registry.repairs):
        for entry in _entries(kind):
            for name in _statistics(entry):
                asked.setdefault(name, []).append(f"`{entry.name}`")
    rows = [
        (*_named(entry), entry.meta.at, ", ".join(asked.get(entry.name, ()))) for entry in _entries(registry.statistics)
    ]
    return table(("statistic", "what it is", "site", "asked for by"), rows)


def _ranks(meta: CriterionMetadata) -> str:
    """What a criterion can rank."""
    found = ["single weights"] if meta.scope.for_weights else []
    if meta.ranked != "nothing":
        found.append(f"clusters of {meta.ranked}" if meta.scope.makes_clusters else meta.ranked)
    return ", ".join(found)


def needs(entry: Entry[Any]) -> list[str]:
    """What a part reads: `weights`, `text`, `gradients`; none of them for one that reads nothing."""
    learns = isinstance(entry.meta, CriterionMetadata) and entry.meta.scope.learns
    shown = {"weight", "views", "router"} & set(inspect.signature(entry.target).parameters)
    found = ["weights"] if shown or learns else []
    asked = _statistics(entry)
    if asked:
        found.append("text")
    if any(registry.sites.get(registry.statistics.get(name).meta.at).meta.backward for name in asked):
        found.append("gradients")
    return found


def _table(kind: Registry[Any], word: str) -> str:
    rows = [
        (*_named(entry), ", ".join(f"`{name}`" for name in _statistics(entry)) or "–", _paper(entry))
        for entry in _entries(kind)
    ]
    return table((word, "what it does", "statistics", "paper"), rows)


def _reads(entry: Entry[Any]) -> list[str]:
    weights = [word for word in needs(entry) if word == "weights"]
    return [*weights, *(f"`{name}`" for name in _statistics(entry))]


def _statistics(entry: Entry[Any]) -> list[str]:
    """Those it always asks for, then those that an argument asks for."""
    found = list(entry.meta.needs)
    for more in entry.meta.when.values():
        for names in more.values() if isinstance(more, Mapping) else (more,):
            found += [name for name in names if name not in found]
    return found


def _named(entry: Entry[Any]) -> tuple[str, str]:
    shown = ", ".join(f"`{name}`{_shown(parameter.default)}" for name, parameter in entry.parameters.items())
    return f"`{entry.name}`", entry.about + (f" Arguments: {shown}." if shown else "")


def _shown(value: Any) -> str:
    """A default behind its argument."""
    if value is inspect.Parameter.empty:
        return " (required)"
    if value is None:
        return ""
    return f"={str(value).lower() if isinstance(value, bool) else value}"


def _paper(entry: Entry[Any]) -> str:
    return paper(entry.meta.paper)


def _entries(kind: Registry[Any]) -> list[Entry[Any]]:
    return [kind.get(name) for name in kind.names()]
