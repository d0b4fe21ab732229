"""What a module must know of its new sizes: by rule for torch's own modules, by trying for the user's.

A set of attributes is right when the cut module, traced, has every tensor laid out over axes as the dense one's graph
says it must be: 3 heads of 16 channels are not 4 heads of 12, though a forward runs with either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, product
from typing import Any, cast

import numpy as np
from torch import nn

from compress.console import detail
from compress.errors import ModelError
from compress.graph.layout import Layout, kept_size
from compress.graph.names import Names
from compress.model.changes import Changes, get
from compress.model.model import Model
from compress.model.narrow import can_narrow
from compress.model.sizes import KNOWN
from compress.model.skeleton import Skeleton
from compress.output_format.integers import Choice, choices, integers
from compress.output_format.trial import Trial, View, attempt, expected, lines_of_views

Kept = Mapping[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]

MOST = 48
"""Sets of attributes that are tried."""

FOLLOWING = 8
"""Views of one set that may have to follow their inputs, those of modules that are alike counted once."""


@dataclass(frozen=True)
class Found:
    """The `changes`; the `shapes` of every tensor that is left, by its new name; `edits`: attribute → (old, new)."""

    changes: Changes
    shapes: Shapes
    edits: dict[str, tuple[Any, Any]]


def find_changes(source: Model, kept: Kept, biases: Shapes) -> Found:
    """What has to change in the module of `source` when it keeps `kept` and gets `biases`, by their new names.

    Raises ModelError, naming the module, where no integers of its modules make it run as it must.
    """
    graph, names = source.graph, Names(source.graph, kept)
    sizes = {name: int(mask.sum()) for name, mask in kept.items()}
    skeleton = cast(Skeleton, source.checkpoint.architecture)
    shapes = {new: shape for name, shape in graph.shapes(kept).items() if (new := names.new(name)) is not None}
    constants = {
        new: tuple(kept_size(part, sizes) for part in layout)
        for name, layout in graph.values.items()
        if (new := names.new(name)) is not None
    }
    left = {**shapes, **constants}
    cut = {
        new: left[new]
        for name, layout in (*graph.layouts.items(), *graph.values.items())
        if (new := names.new(name)) is not None and left[new] != tuple(part.size for part in layout)
    }
    if not cut and not biases and all(mask.all() for mask in kept.values()):
        return Found(Changes(), shapes, {})
    changes = Changes(layers=names.layers, shapes=cut, biases=biases)
    changes = replace(changes, narrowed=_narrowed(skeleton.changed(changes).module, cut))
    renamed = dict(_renamed(skeleton.module, names))
    search = _Search(source, skeleton, expected(graph, kept, names), changes, renamed, sizes)
    trial = search.of(changes)
    if trial.failure is not None:
        wanted = {old: new for new, old in renamed.items()}
        changes, trial = search.fewest(choices(graph, kept, integers(skeleton), wanted))
    attributes = {name: dict(values) for name, values in changes.attributes.items()}
    for name, values in trial.attributes.items():
        attributes.setdefault(name, {}).update(values)
    changes = replace(changes, attributes=attributes)
    return Found(changes, {**shapes, **biases}, _edits(skeleton.module, names, attributes))


@dataclass
class _Search:
    """Tries sets of attributes on the module that `plain`, without any, leaves. `renamed`: module → its old name."""

    source: Model
    skeleton: Skeleton
    expected: Mapping[str, Any]
    plain: Changes
    renamed: Mapping[str, str]
    sizes: Mapping[str, int]
    tried: int = 0

    @cached_property
    def _seen(self) -> tuple[dict[str, list[str]], dict[str, list[list[Layout]]]]:
        return lines_of_views(self.source, self.skeleton)

    @property
    def lines(self) -> dict[str, list[str]]:
        """The lines that the dense module's views stand in."""
        return self._seen[0]

    @cached_property
    def parts(self) -> dict[str, list[list[int]]]:
        """What the plan makes of the parts of all splits, by new names of modules."""
        return {
            new: [[kept_size(part, self.sizes) for part in parts] for parts in self._seen[1].get(old, ())]
            for new, old in self.renamed.items()
        }

    def of(self, changes: Changes) -> Trial:
        """What comes of these changes."""
        self.tried += 1
        return attempt(self.source, self.skeleton.changed(changes), self.expected, self.parts)

    def fewest(self, found: list[Choice]) -> tuple[Changes, Trial]:
        """The fewest of the `found` choices, and views, that make the module right. Raises ModelError without any."""
        failure, best = None, None
        sets = product(*([*range(len(choice.options)), None] for choice in found))
        for chosen in chain([next(sets), (None,) * len(found)], sets):  # views and splits alone come early
            made, trial = self._followed(self._with(found, chosen, self.plain))
            failure = failure or trial.failure
            if trial.failure is None:
                best = chosen, made, trial
            if best is not None or self.tried > MOST:
                break
        if best is None:
            names = ", ".join(sorted(choice.name for choice in found)) or "none has the size of what was cut"
            raise ModelError(
                f"{failure}. No integers of its modules explain it (tried: {names}); its code may have a width written "
                f"into it: read it from an attribute or from a tensor's shape, or leave these units whole with `skip`"
            )
        chosen, made, trial = best
        for place, option in enumerate(chosen):
            fewer = (*chosen[:place], None, *chosen[place + 1 :])
            if option is not None and (result := self.of(other := self._with(found, fewer, made))).failure is None:
                chosen, made, trial = fewer, other, result
        for number, place in sorted({view for views in made.views.values() for view in views.items()}):
            rest = {
                name: {n: at for n, at in views.items() if (n, at) != (number, place)}
                for name, views in made.views.items()
            }
            other = replace(made, views={name: views for name, views in rest.items() if views})
            if (result := self.of(other)).failure is None:
                made, trial = other, result
        detail(f"attributes: {self.tried} sets tried")
        return made, trial

    def _with(self, found: list[Choice], chosen: tuple[int | None, ...], before: Changes) -> Changes:
        attributes: dict[str, dict[str, Any]] = {}
        for choice, option in zip(found, chosen, strict=True):
            for (module, path), value in ({} if option is None else choice.options[option]).items():
                attributes.setdefault(module, {})[path] = value
        return replace(before, attributes=attributes)

    def _followed(self, changes: Changes, depth: int = FOLLOWING) -> tuple[Changes, Trial]:
        """The changes with views that follow their inputs where they do not fit them; as they are where that does not
        make the module right."""
        trial = self.of(changes)
        if trial.split is not None and depth and (made := self._parted(changes, *trial.split)) is not None:
            other, result = self._followed(made, depth - 1)
            if result.failure is None:
                return other, result
        if trial.view is None or depth == 0:
            return changes, trial
        for place in reversed(trial.view.places):
            made = self._following(changes, trial.view, place)
            if made.views == changes.views or self.tried > MOST:
                break
            other, result = self._followed(made, depth - 1)
            if result.failure is None:
                return other, result
        return changes, trial

    def _parted(self, changes: Changes, module: str, number: int) -> Changes | None:
        """The splits of every module of that class whose parts change, given the plan's; None where this one has
        them."""
        changed = self.skeleton.changed(self.plain).module
        cls = type(changed.get_submodule(module))
        splits = {name: dict(own) for name, own in changes.splits.items()}
        if str(number) in splits.get(module, {}):
            return None
        splits.setdefault(module, {})[str(number)] = self.parts[module][number]
        for name, part in changed.named_modules():
            for place, old in enumerate(self._seen[1].get(self.renamed[name], ()) if type(part) is cls else ()):
                now = self.parts[name][place]
                if changes.attributes.get(name) or now != [kept_size(one, {}) for one in old]:
                    splits.setdefault(name, {})[str(place)] = now
        return replace(changes, splits=splits)

    def _following(self, changes: Changes, view: View, place: int) -> Changes:
        """The same view of every module of that class in which something is cut."""
        module = self.skeleton.changed(self.plain).module
        cls = type(module.get_submodule(view.module))
        views = {name: dict(places) for name, places in changes.views.items()}
        own = self.lines[self.renamed[view.module]]
        line, before = own[view.number], own[: view.number].count(own[view.number])
        for name, part in module.named_modules():
            prefix = name + "." if name else ""
            if type(part) is cls and any(tensor.startswith(prefix) for tensor in self.plain.shapes):
                same = [number for number, other in enumerate(self.lines.get(self.renamed[name], ())) if other == line]
                if len(same) > before:
                    views.setdefault(name, {})[str(same[before])] = place
        return replace(changes, views=views)


def _narrowed(module: nn.Module, cut: Shapes) -> list[str]:
    """Attentions of torch whose heads together are no longer as wide as what they read."""
    return [
        name
        for name, part in module.named_modules()
        if can_narrow(part) and f"{name}.in_proj_weight".lstrip(".") in cut
    ]


def _renamed(module: nn.Module, names: Names) -> Iterator[tuple[str, str]]:
    """New and old names of the modules that are left."""
    for name, _ in module.named_modules():
        if (new := names.new(name)) is not None:
            yield new, name


def _edits(module: nn.Module, names: Names, attributes: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Any, Any]]:
    """Attribute → old and new value, by their old names; what torch's modules note of their tensors goes unsaid."""
    old = dict(_renamed(module, names))
    found = {}
    for name, values in attributes.items():
        own = module.get_submodule(old[name])
        for path, value in values.items():
            if not isinstance(own, KNOWN) or path == "groups":
                found[f"{old[name]}.{path}".lstrip(".")] = (get(own, path), value)
    return found
