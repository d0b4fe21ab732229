"""Which numbers of which modules must change with the tensors that were cut, found by trying."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import chain, combinations
from typing import Any

from torch import nn

from compress.errors import ModelError
from compress.graph.trace import trace
from compress.output_format.attributes import Change, Follows, Rule, Shapes, candidates, expand, pattern, set_for
from compress.output_format.failure import Failing
from compress.output_format.probe import Read, accepts, attention_shapes, both_ways, reads, shapes_of
from compress.output_format.trial import nested

MAX_CHANGED = 5
"""Attributes of one kind of block that may have to change at once."""

FEW = 1
"""So many are tried in all their combinations before it is looked at where a forward fails."""

INNER = 2
"""Of the modules that run where a forward fails so many are looked at before views."""

WRONG = 8
"""Sets under which it runs, if not right, after which no others are tried."""

MOST = 400
"""Forwards of the search that looks where they fail."""


def find_rules(
    model: nn.Module,
    reshaped: nn.Module,
    width: int | None,
    laid: Mapping[str, tuple[Any, ...]] | None = None,
    read: Read | None = None,
) -> tuple[Change, ...]:
    """A small set of rules under which `reshaped` runs.

    Args:
        model: the original on meta, few layers.
        reshaped: the same with the wanted shapes; its attributes are tried out and put back.
        width: new width of a head where that changes, else None.
        laid: how tensors of `reshaped` are to be put together of axes, if that is known.
        read: what to give them.

    Raises:
        ModelError: no set makes the forward valid.
    """
    read = read or both_ways(model, reads(model))
    widths = [width if width else old for _, old in attention_shapes(model, read)]
    search = _Search(model, reshaped, read, widths, shapes_of(model), shapes_of(reshaped), laid or {})
    found = dict(candidates(model, read, search.before, search.after))
    rules = list(found)
    sets = list(_alike(found))
    few = [one for one in sets if len({rule.attribute for rule in one}) <= FEW]
    if (chosen := search.best(few, wrong=False)) is not None:
        return chosen
    if (guided := _Guided(search, found).find()) is not None:
        return guided
    others = chain(few, (one for one in sets if len({rule.attribute for rule in one}) > FEW), _few(rules))
    if (chosen := search.best(others)) is not None:
        return chosen
    tried = ", ".join(sorted({f"{r.module}.{r.attribute}" for r in rules})) or "none"
    raise ModelError(
        f"{type(model).__name__} does not run with these shapes, whatever numbers its modules are given "
        f"(tried: {tried}). Prune with `widths: uniform`, or leave this kind out."
    )


def _alike(found: Mapping[Rule, Fraction]) -> Iterator[tuple[Rule, ...]]:
    """Sets of rules that say the same of every kind of module: attentions of encoders and decoders alike."""
    groups = _groups(found)
    for count in range(min(MAX_CHANGED, len(groups)) + 1):
        for names in combinations(groups, count):
            if len({attribute for attribute, _ in names}) == count:
                yield tuple(rule for name in names for rule in groups[name])


def _groups(found: Mapping[Rule, Fraction]) -> dict[tuple[str, Fraction], list[Rule]]:
    groups: dict[tuple[str, Fraction], list[Rule]] = {}
    for rule, ratio in found.items():
        groups.setdefault((rule.attribute, ratio), []).append(rule)
    return groups


def _few(rules: list[Rule]) -> Iterator[tuple[Rule, ...]]:
    """Sets of few rules, of which no two say how one attribute is to change."""
    for count in range(1, min(MAX_CHANGED, len(rules)) + 1):
        for chosen in combinations(rules, count):
            if len({(rule.module, rule.attribute) for rule in chosen}) == count:
                yield chosen


@dataclass
class _Search:
    """Tries rules on `reshaped`, whose attentions are to see heads of these `widths`."""

    model: nn.Module
    reshaped: nn.Module
    read: Read
    widths: list[int]
    before: Shapes
    after: Shapes
    laid: Mapping[str, tuple[Any, ...]]

    def fits(self, chosen: tuple[Change, ...], failing: Failing | None = None) -> bool:
        """Whether it runs under these rules; `failing` then knows where it does not."""
        try:
            values = expand(chosen, self.model, self.before, self.after)
        except ModelError:  # what a rule says of one module another one cannot follow
            return False
        with set_for(self.reshaped, values):
            if failing is None:
                return accepts(self.reshaped, self.widths, self.read)
            with failing.watch(self.reshaped), failing:
                return accepts(self.reshaped, self.widths, self.read)

    def best(self, sets: Iterable[tuple[Change, ...]], *, wrong: bool = True) -> tuple[Change, ...] | None:
        """The first of the sets under which it runs right; else, if a `wrong` one will do, as what is written is
        verified anyway, of the first few under which it runs the first."""
        running = []
        for chosen in sets:
            if self.fits(chosen):
                if self.right(chosen):
                    return chosen
                running.append(chosen)
                if len(running) == WRONG:
                    break
        return running[0] if running and wrong else None

    def right(self, chosen: tuple[Change, ...]) -> bool:
        """Whether all its tensors are also put together of axes as they must be, as far as that is known: 3 heads of 16
        channels are not 4 of 12."""
        with set_for(self.reshaped, expand(chosen, self.model, self.before, self.after)):
            try:
                graph = trace(self.reshaped, self.read.inputs.example()) if self.laid else None
            except ModelError:
                return False
        laid = {} if graph is None else {n: [nested(x, {}) for x in own] for n, own in graph.layouts.items()}
        return all(list(self.laid[name]) == own for name, own in laid.items() if name in self.laid)

    @cached_property
    def parts(self) -> set[int]:
        """Sizes of axes that dimensions are products of: heads, and how wide they are."""
        return {*self.widths, *(size for own in self.laid.values() for each in own for size in _factors(each))}


def _factors(laid: Any) -> Iterator[int]:
    """The sizes in products, wherever they are in what `trial.nested` gives."""
    if isinstance(laid, tuple):
        yield from (part for part in laid if isinstance(part, int))
    for part in laid if isinstance(laid, tuple | list) else ():
        yield from _factors(part)


class _Guided:
    """Goes from failure to failure: what is read where a forward fails, or above, is changed if it gets further then;
    else a view that does not fit what it is given follows it."""

    def __init__(self, search: _Search, found: Mapping[Rule, Fraction]) -> None:
        self._search, self._found, self._tries = search, found, 0

    def find(self) -> tuple[Change, ...] | None:
        """Rules, of which none could be left out; None where so many tries find none."""
        found = self._further((), -1)
        for one in found or ():
            fewer = tuple(other for other in found or () if other is not one)
            if self._search.fits(fewer) and self._search.right(fewer):
                found = fewer
        return found

    def _further(self, chosen: tuple[Change, ...], steps: int) -> tuple[Change, ...] | None:
        if self._tries >= MOST:
            return None
        self._tries += 1
        failing = Failing()
        if self._search.fits(chosen, failing):
            return chosen if self._search.right(chosen) else None
        if failing.steps <= steps:
            return None
        for more in self._options(chosen, failing):
            if (found := self._further((*chosen, *more), failing.steps)) is not None:
                return found
        return None

    def _options(self, chosen: tuple[Change, ...], failing: Failing) -> Iterator[tuple[Change, ...]]:
        """What may help where it fails: numbers of the modules there, views, numbers of those around, two at once."""
        taken = {(one.module, one.attribute) for one in chosen}
        near = {pattern(name): depth for depth, name in enumerate(failing.above)}
        left = {rule: ratio for rule, ratio in self._found.items() if (rule.module, rule.attribute) not in taken}
        groups = [tuple(own) for own in _groups(left).values() if any(rule.module in near for rule in own)]
        groups.sort(key=lambda own: max(near.get(rule.module, -1) for rule in own), reverse=True)
        single = [(rule,) for own in groups for rule in own if rule.module in near and len(own) > 1]
        inner = {name for name, depth in near.items() if depth >= len(failing.above) - INNER}
        yield from (own for own in (*groups, *single) if any(rule.module in inner for rule in own))
        if failing.view is not None:
            cls = type(self._search.reshaped.get_submodule(failing.view.module))
            alike = {pattern(name) for name, part in self._search.reshaped.named_modules() if type(part) is cls}
            for place in failing.view.places(self._search.parts):
                views = [Follows(name, len(failing.view.sizes), place) for name in sorted(alike)]
                if not any((view.module, view.attribute) in taken for view in views):
                    yield tuple(views)
        yield from (own for own in (*groups, *single) if not any(rule.module in inner for rule in own))
        for one, other in combinations(groups, 2):
            if one[0].attribute != other[0].attribute:
                yield (*one, *other)
